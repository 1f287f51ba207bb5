"""The norms over the checkpoints of one training run: which dimensions left the bulk, and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from surgeon.checkpoint import open_for_scan
from surgeon.errors import CheckpointError
from surgeon.outliers.layernorm import MIN_LAYERS, check_sigma, criterion, layers_needed
from surgeon.outliers.options import SIGMA
from surgeon.outliers.zscores import ZScores, read_zscores
from surgeon.progress import Progress, silent
from surgeon.study.courses import Look, Run, bulk, courses, passing
from surgeon.study.series import Stop, find_series
from surgeon.study.trace_files import check_output, table_rows, write_result
from surgeon.study.trace_result import Trace

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
    alone are read.

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
    read: list[_Read] = []
    with table_rows(output, force=force) as add_rows:
        for number, stop in enumerate(series.stops):
            progress(f"reading {stop.label}", number, len(series.stops))
            zscores, facts, received = _open_and_read(stop, sites_pattern)
            if read:
                _check_alike(series.stops[0], read[0].facts, stop, facts)
            needed = layers_needed(min_layers, facts.layers)
            add_rows(stop.step, zscores)
            read.append(_Read(facts, Look.at(zscores, sigma, needed), received))
    facts = read[-1].facts
    run = Run.of(
        [stop.step for stop in series.stops], [one.look for one in read], facts.layers, needed
    )
    counted = [one.received for one in read if one.received is not None]
    trace = Trace(
        name=series.name,
        architecture=facts.architecture,
        layers=facts.layers,
        hidden_size=facts.hidden_size,
        evidence=facts.evidence,
        gain_name=facts.gain_name,
        criterion=criterion(zscores, sigma, needed),
        sigma=sigma,
        needed=needed,
        stops=series.stops,
        outliers=run.outliers,
        courses=courses(run, top),
        passing=passing(run),
        bulk=bulk(run),
        bytes_read=sum(counted) if counted else None,
    )
    write_result(trace, output, force=force)
    return trace


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


def _open_and_read(stop: Stop, sites_pattern: str | None) -> tuple[ZScores, _Facts, int | None]:
    """Read one checkpoint; nothing of it is open or kept after that."""
    try:
        checkpoint = open_for_scan(stop.model, revision=stop.revision, sites_pattern=sites_pattern)
        zscores = read_zscores(checkpoint)
    except CheckpointError as error:
        # Without a revision, the error names the model.
        where = f"{stop.revision}: " if stop.revision is not None else ""
        advice = f"; --skip {stop.name} leaves it out"
        raise CheckpointError(f"{where}{error}{advice}") from error
    facts = _Facts(
        architecture=checkpoint.family.name,
        layers=len(zscores.rows),
        hidden_size=checkpoint.hidden_size,
        evidence=zscores.evidence,
        gain_name=zscores.gain_name,
    )
    return zscores, facts, checkpoint.remote.bytes_read if checkpoint.remote else None


def _check_alike(first: Stop, expected: _Facts, stop: Stop, found: _Facts) -> None:
    if found != expected:
        raise CheckpointError(
            f"{stop.label}: has {found} ({found.evidence}), but {first.label} has {expected} "
            f"({expected.evidence}); give the checkpoints of one run"
        )
