"""The norms over the checkpoints of one training run: which dimensions left the bulk, and when."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

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
from surgeon.ranking.layernorm import (
    MIN_LAYERS,
    Standing,
    check_sigma,
    criterion,
    layers_needed,
    stand,
)
from surgeon.ranking.ranking import SIGMA
from surgeon.ranking.zscores import ZScores, read_zscores
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
from surgeon.study.trace_result import (
    Band,
    Bulk,
    Course,
    Passing,
    Repeat,
    Trace,
)

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
            checkpoint = open_remote(
                listing.model_id,
                stop.revision,
                sites_pattern=sites_pattern,
                reading=FRUGAL,
                listing=listing,
            )
        zscores = read_zscores(checkpoint)
    if path is not None:
        keep(path, zscores, checkpoint.family.name)
    received = checkpoint.meter.received if checkpoint.meter else None
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


@dataclass(frozen=True)
class Look:
    """What is kept of a checkpoint: arrays of shape (hidden,); gain and bias are means over layers.

    ``reach`` is the distance that as many layers reach as make an outlier: one is flagged exactly
    if it lies beyond sigma.
    """

    standing: Standing
    reach: npt.NDArray[np.float64]
    gain: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64] | None

    @classmethod
    def at(cls, zscores: ZScores, sigma: float, needed: int) -> Look:
        """Keep what a trace needs, and nothing that grows with the layers."""
        return cls(
            standing=stand(zscores, sigma),
            reach=np.sort(zscores.smaller, axis=0)[-needed].copy(),  # not a view of the whole
            gain=zscores.gain.mean(axis=0),
            bias=None if zscores.bias is None else np.nanmean(zscores.bias, axis=0),
        )


@dataclass(frozen=True)
class Run:
    """The looks at a run's checkpoints as arrays of shape (steps, hidden)."""

    steps: tuple[int, ...]
    flagged: npt.NDArray[np.bool_]
    score: npt.NDArray[np.float64]
    strength: npt.NDArray[np.float64]
    reach: npt.NDArray[np.float64]
    gain: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64] | None
    last: Standing

    @classmethod
    def of(cls, steps: Sequence[int], looks: Sequence[Look], layers: int, needed: int) -> Run:
        """Put the looks one below the other; ``needed`` of ``layers`` make an outlier."""
        counts = np.stack([look.standing.counts for look in looks])
        biases = [look.bias for look in looks if look.bias is not None]
        return cls(
            steps=tuple(steps),
            flagged=counts >= needed,
            score=counts / layers,
            strength=np.stack([look.standing.strength for look in looks]),
            reach=np.stack([look.reach for look in looks]),
            gain=np.stack([look.gain for look in looks]),
            bias=np.stack(biases) if biases else None,
            last=looks[-1].standing,
        )

    @property
    def outliers(self) -> tuple[int, ...]:
        """The outliers of the last checkpoint, strongest first."""
        return tuple(int(dim) for dim in self.last.order if self.flagged[-1, dim])


def courses(run: Run, count: int) -> tuple[Course, ...]:
    """Return the courses of all outliers, and of the strongest others to make ``count``."""
    # Every outlier is flagged by more layers than any other dimension, so they come first.
    dims = run.last.order[: max(count, len(run.outliers))]
    return tuple(_course(run, int(dim)) for dim in dims)


def passing(run: Run) -> tuple[Passing, ...]:
    """Return the dimensions that were outliers and are none at the end, by when they came."""
    once = np.flatnonzero(run.flagged.any(axis=0) & ~run.flagged[-1])
    at = {int(dim): np.flatnonzero(run.flagged[:, dim]) for dim in once}
    found = [Passing(dim, run.steps[i[0]], run.steps[i[-1]]) for dim, i in at.items()]
    return tuple(sorted(found, key=lambda passed: (passed.first, passed.dim)))


def bulk(run: Run) -> Bulk | None:
    """Return where the dimensions lie that are no outliers at the end; None if there are none."""
    rest = ~run.flagged[-1]
    if not rest.any():
        return None
    return Bulk(
        dims=int(rest.sum()),
        strength=_band(run.strength[:, rest]),
        reach=_band(run.reach[:, rest]),
        gain_z=_band(run.gain[:, rest]),
        bias_z=None if run.bias is None else _band(run.bias[:, rest]),
    )


def _course(run: Run, dim: int) -> Course:
    flagged = run.flagged[:, dim]
    outlier = bool(flagged[-1])
    in_bulk = np.flatnonzero(~flagged)
    left = int(in_bulk[-1]) + 1 if in_bulk.size else 0
    return Course(
        dim=dim,
        outlier=outlier,
        left_at=run.steps[left] if outlier else None,
        last_in_bulk=run.steps[left - 1] if outlier and left else None,
        flagged_at=tuple(run.steps[number] for number in np.flatnonzero(flagged)),
        score=_floats(run.score[:, dim]),
        strength=_floats(run.strength[:, dim]),
        reach=_floats(run.reach[:, dim]),
        gain_z=_floats(run.gain[:, dim]),
        bias_z=None if run.bias is None else _floats(run.bias[:, dim]),
    )


def _band(values: npt.NDArray[np.float64]) -> Band:
    low, median, high = np.percentile(values, [1, 50, 99], axis=1)
    return Band(_floats(low), _floats(median), _floats(high))


def _floats(values: npt.NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(map(float, values))
