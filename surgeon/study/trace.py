"""The norms over a training run's checkpoints: which dimensions become outliers, and when."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from surgeon.edit import disk
from surgeon.edit.files import check_new_file
from surgeon.edit.staging import replace_file
from surgeon.errors import CheckpointError, HubUnavailableError, Interrupted, SelectionError
from surgeon.model import open_for_scan
from surgeon.model.download import find_cached
from surgeon.model.files import read_object
from surgeon.model.hub import Listing, hub_id, list_weights
from surgeon.model.hub_errors import PATIENT, explained
from surgeon.model.ranges import FRUGAL
from surgeon.model.remote import open_remote
from surgeon.progress import Progress, silent
from surgeon.ranking.layernorm import MIN_LAYERS, check_sigma, criterion, layers_needed
from surgeon.ranking.ranking import SIGMA
from surgeon.ranking.zscores import ZScores, read_zscores
from surgeon.study.run import PARQUET, check_table, open_table
from surgeon.study.training_run import (
    Repeat,
    Snapshot,
    Trace,
    TrainingCheckpoint,
    find_checkpoints,
    follow,
    take_snapshot,
)

TOP = 10
_SUMMARY = ".json"
_KEPT = "norm-surgeon"  # the folder in the Hub's cache of assets


def trace_training(
    checkpoints: str | Path | Sequence[str | Path],
    *,
    revisions: str | None = None,
    skip: Sequence[str] = (),
    sigma: float = SIGMA,
    min_layers: float = MIN_LAYERS,
    sites_pattern: str | None = None,
    top: int = TOP,
    output: str | Path | None = None,
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
        Interrupted: by Ctrl-C; the same call goes on.
    """
    check_sigma(sigma)
    if top < 1:
        raise SelectionError(f"`top` {top}: give a number of 1 or more")
    if output is not None:
        output = Path(output)
        advice = f"give {PARQUET} for every z-score, or {_SUMMARY} for the result"
        check_table(output, (PARQUET, _SUMMARY), advice)
        check_new_file(output, force=force)
    name, found = find_checkpoints(checkpoints, revisions, skip)
    listings = {checkpoint: _listing(checkpoint, progress) for checkpoint in found}
    kept, repeats = _without_repeats(listings)
    snapshots: list[Snapshot] = []
    received: list[int | None] = []
    expected: _Facts | None = None
    try:
        with _open_rows(output, force=force) as add_rows:
            for number, checkpoint in enumerate(kept):
                progress(f"reading {checkpoint.label}", number, len(kept))
                zscores, architecture, size = _read(checkpoint, listings[checkpoint], sites_pattern)
                layers, hidden = zscores.gain.shape
                facts = _Facts(architecture, layers, hidden, zscores.evidence, zscores.gain_name)
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
    of_hub = [size for size in received if size is not None]
    last = listings[kept[-1]]
    trace = Trace(
        name=last.model_id if last and revisions is not None else name,
        **vars(facts),
        criterion=criterion(zscores, sigma, needed),
        sigma=float(sigma),
        needed=needed,
        checkpoints=kept,
        **follow([one.step for one in kept], snapshots, facts.layers, needed, top),
        bytes_read=sum(of_hub) if of_hub else None,
        repeats=repeats,
    )
    _write_result(trace, output, force=force)
    for listing in filter(None, listings.values()):
        _forget(_kept_path(listing, sites_pattern))
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
) -> tuple[ZScores, str, int | None]:
    """Return a checkpoint's z-scores, its architecture, and how many bytes came off the Hub."""
    path = None if listing is None else _kept_path(listing, sites_pattern)
    if path is not None and (kept := _read_kept(path)) is not None:
        return *kept, 0
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
        _keep(path, zscores, architecture)
    return zscores, architecture, opened.meter.received if opened.meter else None


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


def _check_alike(
    first: TrainingCheckpoint, expected: _Facts, checkpoint: TrainingCheckpoint, found: _Facts
) -> None:
    if found != expected:
        raise CheckpointError(
            f"{checkpoint.label}: has {found} ({found.evidence}), but {first.label} has {expected} "
            f"({expected.evidence}); give the checkpoints of one run"
        )


@contextlib.contextmanager
def _open_rows(path: Path | None, *, force: bool) -> Iterator[Callable[[int, ZScores], None]]:
    """Yield what adds a checkpoint's z-scores to the table at ``path``, which appears at the end.

    A row is a step, a layer (counted through, an encoder's before its decoder's) and a dimension,
    with ``gain_z`` and ``bias_z`` in float32, the latter null where there is no bias. A checkpoint
    is a row group, written before the next is read. For another ``path`` than a ``.parquet`` file,
    rows go nowhere.
    """
    if path is None or path.suffix.lower() != PARQUET:
        yield lambda step, zscores: None  # noqa: ARG005  (the names of the type)
        return
    import pyarrow as pa

    whole, real = pa.int32(), pa.float32()
    types = {"step": pa.int64(), "layer": whole, "dim": whole, "gain_z": real, "bias_z": real}
    schema = pa.schema(types)

    def add(step: int, zscores: ZScores) -> None:
        layers, hidden = zscores.gain.shape
        bias = np.full_like(zscores.gain, np.nan) if zscores.bias is None else zscores.bias
        columns = {
            "step": np.full(layers * hidden, step),
            "layer": np.repeat(np.arange(layers), hidden),
            "dim": np.tile(np.arange(hidden), layers),
            "gain_z": zscores.gain.ravel(),
            "bias_z": pa.array(bias.ravel(), from_pandas=True),  # NaN becomes null
        }
        writer.write_table(pa.table(columns).cast(schema))

    with open_table(path, schema, force=force) as writer:
        yield add


def _write_result(trace: Trace, path: Path | None, *, force: bool) -> None:
    """Write the result to ``path`` if it is a ``.json`` file."""
    if path is None or path.suffix.lower() != _SUMMARY:
        return
    document = trace.to_json()

    def is_result(there: Path) -> bool:
        try:
            found = read_object(there)
        except (CheckpointError, OSError):
            return False
        return found is not None and found.keys() == document.keys()

    content = (json.dumps(document, indent=1, allow_nan=False) + "\n").encode()
    replace_file(path, content, is_result if force else None)


def _kept_path(listing: Listing, sites_pattern: str | None) -> Path:
    """Return where the z-scores of a checkpoint on the Hub are kept until its trace is done."""
    from huggingface_hub import constants

    folder = Path(constants.HF_ASSETS_CACHE, _KEPT, "trace", *listing.model_id.split("/"))
    asked = hashlib.sha256(repr(sites_pattern).encode()).hexdigest()[:8]
    return folder / f"{listing.commit}-{asked}.npz"


def _keep(path: Path, zscores: ZScores, architecture: str) -> None:
    """Write what was read of a checkpoint to ``_kept_path``."""
    words = [architecture, zscores.gain_name, zscores.evidence]
    arrays = {"rows": np.array(zscores.rows), "words": np.array(words), "gain": zscores.gain}
    if zscores.bias is not None:
        arrays["bias"] = zscores.bias
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    # Where the cache takes no files, a stopped trace reads again, and that is all.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content.getvalue())


def _read_kept(path: Path) -> tuple[ZScores, str] | None:
    """Return the z-scores and the architecture that a trace kept before it was stopped."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            architecture, gain_name, evidence = map(str, kept["words"])
            bias = kept.get("bias")
            rows = tuple(map(str, kept["rows"]))
            return ZScores(rows, kept["gain"], bias, gain_name, evidence), architecture
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return None  # not there, or cut off when the machine stopped: it is read again


def _forget(path: Path) -> None:
    """Remove what ``_keep`` wrote, and the folders that it made for it."""
    disk.remove(path)
    with contextlib.suppress(OSError):  # there are others in it
        for folder in path.parents:
            folder.rmdir()
            if folder.name == _KEPT:
                break
