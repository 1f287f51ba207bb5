"""The norms over a training run's checkpoints: which dimensions become outliers, and when."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from surgeon.errors import (
    CheckpointError,
    HubUnavailableError,
    Interrupted,
    SelectionError,
)
from surgeon.model import open_for_scan
from surgeon.model.directory import hub_id
from surgeon.model.download import find_cached
from surgeon.model.hub import Listing, list_weights
from surgeon.model.hub_errors import PATIENT, explained
from surgeon.model.ranges import FRUGAL
from surgeon.model.remote import open_remote
from surgeon.progress import Progress, silent
from surgeon.ranking.layernorm import MIN_LAYERS, check_sigma, criterion, layers_needed
from surgeon.ranking.ranking import SIGMA
from surgeon.ranking.zscores import ZScores, read_zscores
from surgeon.study.trace_files import (
    check_output,
    forget,
    keep,
    kept_path,
    open_rows,
    read_kept,
    write_result,
)
from surgeon.study.training_run import TrainingCheckpoint, find_checkpoints
from surgeon.study.trajectories import Repeat, Snapshot, Trace, Trajectories, take_snapshot

TOP = 10


def trace_training(
    checkpoints: Sequence[str | Path],
    *,
    revisions: str | None = None,
    skip: Sequence[str] = (),
    sigma: float = SIGMA,
    min_layers: float = MIN_LAYERS,
    sites_pattern: str | None = None,
    top: int = TOP,
    output: Path | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> Trace:
    """Follow every dimension's gain and bias over the checkpoints of a training run.

    Each checkpoint is judged by the criterion of ``rank_by_layernorm``. One is open at a time, and
    of each a few values per dimension are kept, so that a long run takes little memory. Of
    revisions on the Hub that are not in the cache, only headers and the last operation of each
    layer are read. A trace of the Hub that was stopped goes on where it was.

    Args:
        checkpoints: several models, one folder whose subfolders are model directories, or one Hub
            id. The step is in the name: the number after ``step``, ``checkpoint``, ``iter`` or
            ``epoch``, or the only number.
        revisions: for a Hub id: a glob over its branches and tags, such as ``step*``.
        skip: globs of names to leave out, such as ``checkpoint-best``.
        sigma: the distance, in standard deviations of the vector.
        min_layers: how many layers must flag an outlier: a share of them if below 1, else a
            count.
        sites_pattern: for an architecture without a row, as in ``open_checkpoint``.
        top: how many trajectories to keep at least; those of all final outliers are kept.
        output: a file to make: ``.parquet``, the z-scores of each step, layer and dimension, or
            ``.json``, the document of ``Trace.to_json``.
        force: replace ``output`` if it exists.
        progress: called before each checkpoint.

    Raises:
        SelectionError: there are fewer than two checkpoints, or one whose name has no step,
            several, or another's; or an option makes no sense for this model.
        CheckpointError: one cannot be read, or is of another architecture or size than the first.
        OutputError: ``output`` exists, or cannot be made.
    """
    check_sigma(sigma)
    if output is not None:
        check_output(output, force=force)
    name, found = find_checkpoints(checkpoints, revisions, skip)
    listings = {checkpoint: _listing(checkpoint, progress) for checkpoint in found}
    kept, repeats = _without_repeats(listings)
    snapshots: list[Snapshot] = []
    received: list[int | None] = []
    expected: _Facts | None = None
    try:
        with open_rows(output, force=force) as add_rows:
            for number, checkpoint in enumerate(kept):
                progress(f"reading {checkpoint.label}", number, len(kept))
                zscores, facts, size = _read(checkpoint, listings[checkpoint], sites_pattern)
                expected = expected or facts
                _check_alike(kept[0], expected, checkpoint, facts)
                needed = layers_needed(min_layers, facts.layers)
                add_rows(checkpoint.step, zscores)
                snapshots.append(take_snapshot(zscores, sigma, needed))
                received.append(size)
    except KeyboardInterrupt as error:
        raise Interrupted(
            f"interrupted; of {len(kept)} checkpoints, {len(snapshots)} are read, and those of the "
            "Hub are kept: run the same command again to go on"
        ) from error
    run = Trajectories([one.step for one in kept], snapshots, facts.layers, needed)
    of_hub = [size for size in received if size is not None]
    last = listings[kept[-1]]
    trace = Trace(
        name=last.model_id if last and revisions is not None else name,
        **vars(facts),
        criterion=criterion(zscores, sigma, needed),
        sigma=sigma,
        needed=needed,
        checkpoints=kept,
        outliers=run.outliers,
        trajectories=run.strongest(top),
        transient=run.transient(),
        bulk=run.bulk(),
        bytes_read=sum(of_hub) if of_hub else None,
        repeats=repeats,
    )
    write_result(trace, output, force=force)
    for listing in filter(None, listings.values()):
        forget(kept_path(listing, sites_pattern))
    return trace


def _listing(checkpoint: TrainingCheckpoint, progress: Progress) -> Listing | None:
    """Ask the Hub for the files of a checkpoint, unless it is here or in the cache."""
    if Path(checkpoint.model).exists():
        return None
    found = hub_id(checkpoint.model, checkpoint.revision)
    if find_cached(found.model, found.revision) is not None:
        return None
    progress(f"asking the Hub for {checkpoint.label}", 0, 0)
    with _named(checkpoint), explained(found.model, found.revision):
        return list_weights(found.model, found.revision, PATIENT)


def _without_repeats(
    listings: Mapping[TrainingCheckpoint, Listing | None],
) -> tuple[tuple[TrainingCheckpoint, ...], tuple[Repeat, ...]]:
    """Leave out the checkpoints on the Hub whose weights are those of a later step.

    Some runs were uploaded with the last weights on many branches (EleutherAI/pythia, issue 205).
    """
    weights = {one: (listing and listing.weights_hash) or one for one, listing in listings.items()}
    last = {weights[one]: one for one in listings}
    kept = tuple(last[weights[one]] for one in listings if last[weights[one]] == one)
    if len(kept) < 2:
        raise SelectionError(
            f"{kept[0].label}: the {len(listings)} checkpoints have the same weights on the Hub; a "
            "trace takes two or more"
        )
    repeats = ((one.step, last[weights[one]].step) for one in listings)
    return kept, tuple(Repeat(step, same) for step, same in repeats if step != same)


@dataclass(frozen=True)
class _Facts:
    """What the checkpoints of one run have in common."""

    architecture: str
    layers: int
    hidden_size: int
    evidence: str
    gain_name: str

    def __str__(self) -> str:
        return f"{self.layers} layers of {self.hidden_size} dimensions, {self.architecture}"


def _read(
    checkpoint: TrainingCheckpoint, listing: Listing | None, sites_pattern: str | None
) -> tuple[ZScores, _Facts, int | None]:
    """Read one checkpoint, and count the bytes off the Hub; nothing of it stays open."""
    path = None if listing is None else kept_path(listing, sites_pattern)
    if path is not None and (kept := read_kept(path)) is not None:
        return kept[0], _facts(*kept), 0
    with _named(checkpoint):
        if listing is None:
            opened = open_for_scan(
                checkpoint.model, revision=checkpoint.revision, sites_pattern=sites_pattern
            )
        else:
            opened = open_remote(
                listing.model_id,
                checkpoint.revision,
                sites_pattern=sites_pattern,
                reading=FRUGAL,
                listing=listing,
            )
        zscores, architecture = read_zscores(opened), opened.family.name
    if path is not None:
        keep(path, zscores, architecture)
    return zscores, _facts(zscores, architecture), opened.meter.received if opened.meter else None


@contextlib.contextmanager
def _named(checkpoint: TrainingCheckpoint) -> Iterator[None]:
    """Say of an error which checkpoint it is about, and how the trace goes on."""
    try:
        yield
    except HubUnavailableError as error:
        kept_too = "what was read is kept: run the same command again to go on"
        raise HubUnavailableError(f"{error}; {kept_too}") from error
    except CheckpointError as error:
        # Without a revision, the error names the model.
        where = f"{checkpoint.revision}: " if checkpoint.revision is not None else ""
        advice = f"; `skip` {checkpoint.name} leaves it out"
        raise CheckpointError(f"{where}{error}{advice}") from error


def _facts(zscores: ZScores, architecture: str) -> _Facts:
    layers, hidden = zscores.gain.shape
    return _Facts(architecture, layers, hidden, zscores.evidence, zscores.gain_name)


def _check_alike(
    first: TrainingCheckpoint, expected: _Facts, checkpoint: TrainingCheckpoint, found: _Facts
) -> None:
    if found != expected:
        raise CheckpointError(
            f"{checkpoint.label}: has {found} ({found.evidence}), but {first.label} has {expected} "
            f"({expected.evidence}); give the checkpoints of one run"
        )
