"""The norms over the checkpoints of one training run: which dimensions left the bulk, and when."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from surgeon.checkpoint import open_for_scan
from surgeon.checkpoint.download import find_cached
from surgeon.checkpoint.hub import Listing, list_weights
from surgeon.checkpoint.hub_errors import explained
from surgeon.checkpoint.model_directory import hub_id, open_frugally
from surgeon.checkpoint.retry import PATIENT
from surgeon.errors import CheckpointError, HubUnavailableError, Interrupted, SelectionError
from surgeon.outliers.layernorm import MIN_LAYERS, check_sigma, criterion, layers_needed
from surgeon.outliers.options import SIGMA
from surgeon.outliers.zscores import ZScores, read_zscores
from surgeon.progress import Progress, silent
from surgeon.study.courses import Look, Run, bulk, courses, passing
from surgeon.study.series import Stop, find_series
from surgeon.study.trace_files import (
    check_output,
    forget,
    keep,
    kept_path,
    read_kept,
    table_rows,
    write_result,
)
from surgeon.study.trace_result import Repeat, Trace

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
    revisions on the Hub that are not in the cache, headers and the last operation of each layer
    alone are read. A trace of the Hub that was stopped goes on where it was.

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
        top: how many courses to keep at least; those of all final outliers are kept.
        output: a file to make: ``.parquet``, the z-scores of each step, layer and dimension, or
            ``.json``, the document of ``Trace.to_json``.
        force: replace ``output`` if it exists.
        progress: told of each checkpoint.

    Raises:
        SelectionError: there are fewer than two checkpoints, or one whose name tells no step,
            several, or another's; or an option makes no sense for this model.
        CheckpointError: one cannot be read, or is of another architecture or size than the first.
        OutputError: ``output`` exists, or cannot be made.
    """
    check_sigma(sigma)
    if output is not None:
        check_output(output, force=force)
    series = find_series(checkpoints, revisions, skip)
    listings = {stop: _listing(stop, progress) for stop in series.stops}
    stops, repeats = _without_repeats(series.stops, listings)
    read: list[_Read] = []
    try:
        with table_rows(output, force=force) as add_rows:
            for number, stop in enumerate(stops):
                progress(f"reading {stop.label}", number, len(stops))
                zscores, facts, received = _open_and_read(stop, listings[stop], sites_pattern)
                if read:
                    _check_alike(stops[0], read[0].facts, stop, facts)
                needed = layers_needed(min_layers, facts.layers)
                add_rows(stop.step, zscores)
                read.append(_Read(facts, Look.at(zscores, sigma, needed), received))
    except KeyboardInterrupt as stopped:
        raise Interrupted(
            f"interrupted; of {len(stops)} checkpoints, {len(read)} are read, and those of the Hub "
            "are kept: run the same command again to go on"
        ) from stopped
    facts = read[-1].facts
    run = Run.of([stop.step for stop in stops], [one.look for one in read], facts.layers, needed)
    counted = [one.received for one in read if one.received is not None]
    last = listings[stops[-1]]
    trace = Trace(
        name=last.model_id if last and revisions is not None else series.name,
        architecture=facts.architecture,
        layers=facts.layers,
        hidden_size=facts.hidden_size,
        evidence=facts.evidence,
        gain_name=facts.gain_name,
        criterion=criterion(zscores, sigma, needed),
        sigma=sigma,
        needed=needed,
        stops=stops,
        outliers=run.outliers,
        courses=courses(run, top),
        passing=passing(run),
        bulk=bulk(run),
        bytes_read=sum(counted) if counted else None,
        repeats=repeats,
    )
    write_result(trace, output, force=force)
    for listing in filter(None, listings.values()):
        forget(kept_path(listing, sites_pattern))
    return trace


def _listing(stop: Stop, progress: Progress) -> Listing | None:
    """Ask the Hub for the files of a checkpoint, unless it is here or in the cache."""
    if Path(stop.model).exists():
        return None
    found = hub_id(stop.model, stop.revision)
    if find_cached(found.model, found.revision) is not None:
        return None
    progress(f"asking the Hub for {stop.label}", 0, 0)
    with _named(stop), explained(found.model, found.revision):
        return list_weights(found.model, found.revision, PATIENT)


def _without_repeats(
    stops: tuple[Stop, ...], listings: Mapping[Stop, Listing | None]
) -> tuple[tuple[Stop, ...], tuple[Repeat, ...]]:
    """Leave out the checkpoints on the Hub whose weights are those of a later step.

    Some runs were uploaded with the last weights on many branches (EleutherAI/pythia, issue 205).
    """
    last: dict[Hashable, Stop] = {}
    for stop in stops:
        listing = listings[stop]
        last[(listing and listing.weights_hash) or stop] = stop
    kept = tuple(sorted(last.values(), key=lambda stop: stop.step))
    if len(kept) < 2:
        raise SelectionError(
            f"{kept[0].label}: the {len(stops)} checkpoints have the same weights on the Hub; a "
            "trace takes two or more"
        )
    repeats = []
    for stop in stops:
        listing = listings[stop]
        same = last[(listing and listing.weights_hash) or stop]
        if same != stop:
            repeats.append(Repeat(stop.step, same.step))
    return kept, tuple(repeats)


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


@dataclass(frozen=True)
class _Read:
    facts: _Facts
    look: Look
    received: int | None  # bytes off the Hub


def _open_and_read(
    stop: Stop, listing: Listing | None, sites_pattern: str | None
) -> tuple[ZScores, _Facts, int | None]:
    """Read one checkpoint; nothing of it is open or kept in memory after that."""
    path = None if listing is None else kept_path(listing, sites_pattern)
    if path is not None and (kept := read_kept(path)) is not None:
        return kept[0], _facts(*kept), 0
    with _named(stop):
        if listing is None:
            checkpoint = open_for_scan(
                stop.model, revision=stop.revision, sites_pattern=sites_pattern
            )
        else:
            checkpoint = open_frugally(
                listing.model_id, stop.revision, sites_pattern=sites_pattern, listing=listing
            )
        zscores = read_zscores(checkpoint)
    if path is not None:
        keep(path, zscores, checkpoint.family.name)
    received = checkpoint.remote.bytes_read if checkpoint.remote else None
    return zscores, _facts(zscores, checkpoint.family.name), received


@contextlib.contextmanager
def _named(stop: Stop) -> Iterator[None]:
    """Say of an error which checkpoint it is about, and how the trace goes on."""
    try:
        yield
    except HubUnavailableError as error:
        kept_too = "what was read is kept: run the same command again to go on"
        raise HubUnavailableError(f"{error}; {kept_too}") from error
    except CheckpointError as error:
        # Without a revision, the error names the model.
        where = f"{stop.revision}: " if stop.revision is not None else ""
        advice = f"; --skip {stop.name} leaves it out"
        raise CheckpointError(f"{where}{error}{advice}") from error


def _facts(zscores: ZScores, architecture: str) -> _Facts:
    return _Facts(
        architecture=architecture,
        layers=len(zscores.rows),
        hidden_size=zscores.gain.shape[1],
        evidence=zscores.evidence,
        gain_name=zscores.gain_name,
    )


def _check_alike(first: Stop, expected: _Facts, stop: Stop, found: _Facts) -> None:
    if found != expected:
        raise CheckpointError(
            f"{stop.label}: has {found} ({found.evidence}), but {first.label} has {expected} "
            f"({expected.evidence}); give the checkpoints of one run"
        )
