"""The scan of many models on the Hub: what is left to do, each model's row kept as it comes."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from surgeon.errors import CheckpointError, HubUnavailableError, SelectionError
from surgeon.model import Checkpoint
from surgeon.model.hub_errors import endpoint
from surgeon.model.ranges import FRUGAL, Meter
from surgeon.model.remote import open_remote
from surgeon.progress import Progress, duration, silent
from surgeon.ranking.layernorm import MIN_LAYERS, check_sigma, layers_needed, rank_zscores
from surgeon.ranking.ranking import SIGMA
from surgeon.ranking.zscores import read_zscores
from surgeon.study import atlas_rows, journal
from surgeon.study.atlas_rows import (
    Criterion,
    Note,
    Target,
    note_of,
    targets_of,
)
from surgeon.study.atlas_table import (
    Atlas,
    Outlook,
    check_suffix,
    check_table,
    count,
    sum_up,
    write_table,
)
from surgeon.study.engines import Engine, choose_engine
from surgeon.study.jobs import DONE, FAILED, JobQueue, Row, describe

WORKERS = 4
RATE = 1.5
"""Models a second: 450 in five minutes, where the Hub answers 500 requests of a stranger."""
MAX_BYTES = 500_000_000
OUTAGES = 5
"""So many models in a row that the network, the Hub or the token failed: then the run stops."""


def build_atlas(
    models: Iterable[str | Target],
    output: Path,
    *,
    engine: Engine | None = None,
    sigma: float = SIGMA,
    min_layers: float = MIN_LAYERS,
    max_bytes: int = MAX_BYTES,
    rate: float = RATE,
    retry: bool = False,
    progress: Progress = silent,
) -> Atlas:
    """Rank the dimensions of many models on the Hub by ``rank_by_layernorm``, into one table.

    Nothing but headers, configurations and the vectors that are ranked by is read. Each model's
    row is in ``output``.rows.jsonl from the moment it is done, and the table is made of these at
    the end. A run that was killed goes on where it stopped; models that are listed no more stay
    in the table, after the others. A model that fails has one row, with its error.

    Args:
        models: Hub ids, with ``@revision`` or without.
        output: the table, as Parquet; it is made, or is that of an earlier run.
        engine: what runs the scans (None: four processes on this machine).
        sigma: as ``rank_by_layernorm``.
        min_layers: as ``rank_by_layernorm``.
        max_bytes: what the vectors of a model may have; more is a failure.
        rate: how many models are started per second at most.
        retry: whether models that failed earlier are tried again.
        progress: told of each row.

    Raises:
        SelectionError: a model is no Hub id, or a number makes no sense.
        OutputError: pyarrow is not installed, ``output`` is no ``.parquet`` file, something else or
            of another criterion, or another run is writing there.
        HubUnavailableError: HF_HUB_OFFLINE is set, or the network, the Hub or the token failed
            ``OUTAGES`` models in a row, and the run stopped, or some models, and the others are in
            the table. The models that could not be read have no row.
    """
    targets, start = targets_of(models), time.monotonic()
    _check(sigma, min_layers, max_bytes, rate)
    check_table(output)
    _check_online()
    run = engine or choose_engine("local", WORKERS)
    scan = Scan(sigma, min_layers, max_bytes)
    bytes_read = 0
    with atlas_rows.opened(output, Criterion(sigma, min_layers)) as (notes, file):
        left = _left(targets, notes, retry=retry)
        ended, failed = len(targets) - len(left), count(targets, notes, FAILED, besides=left)
        kept = ended
        progress(_told(ended, failed, len(targets), kept, start), ended, len(targets))
        missed: list[Row] = []  # their fault is the network's, the Hub's or the token's
        in_a_row = 0
        for row in run(JobQueue(left, rate), scan) if left else ():
            bytes_read += row.get("bytes_read", 0)
            if row.pop("outage", False):
                missed.append(row)
                in_a_row += 1
                if in_a_row >= OUTAGES:
                    raise _outage(missed, output)
                continue
            in_a_row = 0
            notes[_key(row)] = note = note_of(row, journal.append(file, row))
            ended, failed = ended + 1, failed + (note.status == FAILED)
            progress(_told(ended, failed, len(targets), kept, start), ended, len(targets))
        if missed and ended == kept:
            raise _outage(missed, output)
        progress("writing the table", ended, len(targets))
        write_table(output, file, _in_order(targets, notes))
        if missed:
            raise _outage(missed, output)
    seconds = round(time.monotonic() - start, 3)
    return sum_up(output, targets, notes, kept, bytes_read, seconds)


def look_ahead(
    models: Iterable[str | Target],
    output: Path | None = None,
    *,
    sigma: float = SIGMA,
    min_layers: float = MIN_LAYERS,
    rate: float = RATE,
    retry: bool = False,
) -> Outlook:
    """Tell what ``build_atlas`` would do, and do nothing.

    Raises:
        SelectionError: as ``build_atlas``.
        OutputError: ``output`` is something else or of another criterion.
    """
    targets = targets_of(models)
    _check(sigma, min_layers, MAX_BYTES, rate)
    if output is not None:
        check_suffix(output)
    notes = atlas_rows.read_notes(output, Criterion(sigma, min_layers)) if output else {}
    left = len(_left(targets, notes, retry=retry))
    done, failed = (count(targets, notes, status) for status in (DONE, FAILED))
    return Outlook(len(targets), done, failed, left, round(left / rate, 1))


def _check(sigma: float, min_layers: float, max_bytes: int, rate: float) -> None:
    check_sigma(sigma)
    if not (0 < min_layers < 1 or (min_layers >= 1 and min_layers == int(min_layers))):
        raise SelectionError(
            f"--min-layers {min_layers:g}: give a count, or a share of the layers below 1"
        )
    if not (math.isfinite(rate) and rate > 0):
        raise SelectionError(f"--rate {rate:g}: give a positive number of models per second")
    if max_bytes <= 0:
        raise SelectionError(f"--max-mb {max_bytes / 1e6:g}: give a positive number of megabytes")


def _outage(missed: Sequence[Row], output: Path) -> HubUnavailableError:
    last = missed[-1]
    reason = last["error"].removeprefix(f"{last['model']}: ")
    return HubUnavailableError(
        f"{endpoint()}: {len(missed)} models could not be read, {last['model']} the last "
        f"({reason}); they have no row in {atlas_rows.rows_path(output)}: run it again to go on"
    )


def _check_online() -> None:
    from huggingface_hub import constants

    if constants.is_offline_mode():
        raise HubUnavailableError("HF_HUB_OFFLINE is set; unset it to reach the Hub")


def _left(
    targets: Sequence[Target], notes: Mapping[str, Note], *, retry: bool
) -> tuple[Target, ...]:
    ended = {DONE} if retry else {DONE, FAILED}
    return tuple(t for t in targets if t.key not in notes or notes[t.key].status not in ended)


def _in_order(targets: Sequence[Target], notes: Mapping[str, Note]) -> list[int]:
    """Return where the models' rows start: those of the list first, then those of earlier ones."""
    keys = dict.fromkeys([*(target.key for target in targets if target.key in notes), *notes])
    return [notes[key].start for key in keys]


def _key(row: Row) -> str:
    return Target(row["model"], row["asked"]).key


def _told(ended: int, failed: int, models: int, kept: int, start: float) -> str:
    """Say how far the atlas is, how fast, and how long the rest takes at this rate."""
    told = f"{ended} of {models} models" + (f", {failed} failed" if failed else "")
    if not kept < ended < models:
        return told
    rate = (ended - kept) / max(time.monotonic() - start, 1e-9)
    return f"{told}, {rate:.2g} a second, about {duration((models - ended) / rate)} left"


_DIGITS = 5  # after the point; z-scores are at most the root of the hidden size


@dataclass(frozen=True)
class Scan:
    """Scans models: the criterion, and the bytes that the vectors of one may have."""

    sigma: float
    min_layers: float
    max_bytes: int

    def __call__(self, target: Target) -> Row:
        """Return what a model's row says of its scan, or of why that failed."""
        meter = Meter()
        try:
            found = _scan(target, self, meter)
        except Exception as error:  # noqa: BLE001  (a model that fails costs one row)
            found = {"status": FAILED, "error": describe(error)}
            found["outage"] = isinstance(error, HubUnavailableError)
        return {"bytes_read": meter.received, **found}


def _scan(target: Target, scan: Scan, meter: Meter) -> Row:
    """Return a model's columns; those of the dimensions are lists in the order of these."""
    checkpoint = open_remote(target.model, target.revision, reading=FRUGAL, meter=meter)
    layers_needed(scan.min_layers, checkpoint.layers)  # refused before the norms are read
    _check_size(checkpoint, scan.max_bytes)
    zscores = read_zscores(checkpoint)
    ranking = rank_zscores(checkpoint, zscores, scan.sigma, scan.min_layers)
    by_dim = sorted(ranking.dimensions, key=lambda dimension: dimension.dim)
    return {
        "revision": checkpoint.revision,
        "architecture": ranking.architecture,
        "layers": ranking.layers,
        "hidden_size": ranking.hidden_size,
        "outliers": list(ranking.outliers),
        "flagged": [len(dimension.layers) for dimension in by_dim],
        "strength": _rounded(np.array([dimension.strength for dimension in by_dim])),
        "gain_z": _rounded(zscores.gain.mean(axis=0)),
        "bias_z": None if zscores.bias is None else _rounded(np.nanmean(zscores.bias, axis=0)),
        "max_gain_z": _rounded(np.abs(zscores.gain).max(axis=0)),
    }


def _check_size(checkpoint: Checkpoint, most: int) -> None:
    """Refuse a model whose layers end in dense weights that are too large to fetch for a scan."""
    sites = [site for site in checkpoint.sites if site.role == "output"]
    infos = [checkpoint.tensors[n] for site in sites for n in (site.gain, site.bias) if n]
    wanted = sum(info.end - info.start for info in infos)
    if wanted > most:
        kind = "dense weights" if any(len(info.shape) > 1 for info in infos) else "norms"
        raise CheckpointError(
            f"{checkpoint.name}: the {kind} that end its layers have {wanted / 1e6:.0f} MB; "
            "--max-mb sets what a model may cost"
        )


def _rounded(values: npt.NDArray[np.float64]) -> list[float]:
    rounded: list[float] = np.round(values, _DIGITS).tolist()
    return rounded
