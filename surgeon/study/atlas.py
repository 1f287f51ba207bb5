"""The outlier dimensions of many models on the Hub, as one table."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from surgeon.errors import (
    CheckpointError,
    HubUnavailableError,
    OutputError,
    SelectionError,
)
from surgeon.model import Checkpoint
from surgeon.model.hub_errors import endpoint
from surgeon.model.ranges import FRUGAL, Meter
from surgeon.model.remote import open_remote
from surgeon.progress import Progress, silent
from surgeon.ranking.layernorm import MIN_LAYERS, check_sigma, layers_needed, stand
from surgeon.ranking.ranking import SIGMA
from surgeon.ranking.zscores import read_zscores
from surgeon.study.atlas_table import write_atlas
from surgeon.study.engines import Engine, choose_engine
from surgeon.study.jobs import FAILED, JobQueue, Row, Work, describe
from surgeon.study.journal import Entry, Journal, Layout, lock
from surgeon.study.run import Outcome, Outlook, look_ahead, run_jobs
from surgeon.study.table import PARQUET, check_pyarrow, check_suffix
from surgeon.study.targets import Target, targets_of

WORKERS = 4
RATE = 1.5
"""Models a second: 450 in five minutes, where the Hub answers 500 requests of a stranger."""
MAX_BYTES = 500_000_000
OUTAGES = 5
"""So many models in a row that the network, the Hub or the token failed: then the run stops."""

_START = b'{"atlas":1'
_DIGITS = 5  # after the point; z-scores are at most the root of the hidden size


@dataclass(frozen=True)
class Atlas(Outcome):
    """An atlas that has been built: its table, and how many of its models did what.

    ``with_outliers`` of the models have a dimension that meets the criterion. ``bytes_read`` are
    those of the models' files, and ``seconds`` the time, of this run.
    """

    output: Path
    with_outliers: int
    bytes_read: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the document that ``atlas --json`` prints."""
        return {
            "output": str(self.output),
            "rows": str(rows_path(self.output)),
            **self.counts("models"),
            "with_outliers": self.with_outliers,
            "bytes_read": self.bytes_read,
            "seconds": self.seconds,
        }


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

    Only headers, configurations and the vectors that are ranked by are read. Each model's row is
    in ``output``.rows.jsonl as soon as it is done, and the table is made of these at the end. A run
    that was killed goes on where it stopped; models that are no longer listed stay in the table,
    after the others. A model that fails has one row, with its error.

    Args:
        models: Hub ids, with ``@revision`` or without.
        output: the table, as Parquet; it is made, or is that of an earlier run.
        engine: what runs the scans (None: four processes on this machine).
        sigma: as ``rank_by_layernorm``.
        min_layers: as ``rank_by_layernorm``.
        max_bytes: what the vectors of a model may have; more is a failure.
        rate: how many models are started per second at most.
        retry: whether models that failed earlier are tried again.
        progress: called after each row.

    Raises:
        SelectionError: a model is not a Hub id, or a number makes no sense.
        OutputError: pyarrow is not installed, ``output`` is not a ``.parquet`` file, is something
            else or of another criterion, or another run is writing there.
        HubUnavailableError: HF_HUB_OFFLINE is set, or the network, the Hub or the token failed
            ``OUTAGES`` models in a row, and the run stopped, or some models, and the others are in
            the table. The models that could not be read have no row.
    """
    targets, start = targets_of(models), time.monotonic()
    _check(sigma, min_layers, max_bytes, rate)
    _check_suffix(output)
    check_pyarrow(output)
    _check_online()
    reading = _Reading(output, engine or choose_engine("local", WORKERS))
    with open_rows(output, sigma, min_layers) as journal:
        outcome = run_jobs(
            targets,
            Scan(sigma, min_layers, max_bytes),
            journal,
            reading,
            unit="models",
            progress=progress,
            retry=retry,
            rate=rate,
        )
        if reading.rows or not reading.missed:
            progress("writing the table", outcome.done + outcome.failed, outcome.total)
            listed = [target.key for target in targets if target.key in journal.entries]
            keys = list(dict.fromkeys([*listed, *journal.entries]))
            write_atlas(output, journal.rows(keys))
        if reading.missed:
            raise reading.outage()
        with_outliers = sum(journal.entries[key].note > 0 for key in listed)
    return Atlas(
        **vars(outcome),
        output=output,
        with_outliers=with_outliers,
        bytes_read=reading.bytes_read,
        seconds=round(time.monotonic() - start, 3),
    )


def preview_atlas(
    models: Iterable[str | Target],
    output: Path | None = None,
    *,
    sigma: float = SIGMA,
    min_layers: float = MIN_LAYERS,
    rate: float = RATE,
    retry: bool = False,
) -> Outlook:
    """Return what ``build_atlas`` would do, and do nothing.

    Raises:
        SelectionError: as ``build_atlas``.
        OutputError: ``output`` is something else or of another criterion.
    """
    targets = targets_of(models)
    _check(sigma, min_layers, MAX_BYTES, rate)
    entries: dict[str, Entry] = {}
    if output is not None:
        _check_suffix(output)
        path = rows_path(output)
        _check_ours(output, path)
        if path.is_file():
            with path.open("rb") as file:
                entries = _read_journal(output, file, sigma, min_layers).entries
    ahead = look_ahead(targets, entries, retry=retry)
    return replace(ahead, seconds=round(ahead.left / rate, 1))


def rows_path(output: Path) -> Path:
    """Return where the rows of a table are."""
    return output.with_name(f"{output.name}.rows.jsonl")


def _check(sigma: float, min_layers: float, max_bytes: int, rate: float) -> None:
    check_sigma(sigma)
    if not (0 < min_layers < 1 or (min_layers >= 1 and min_layers == int(min_layers))):
        raise SelectionError(
            f"`min_layers` {min_layers:g}: give a count, or a share of the layers below 1"
        )
    if not (math.isfinite(rate) and rate > 0):
        raise SelectionError(f"`rate` {rate:g}: give a positive number of models per second")
    if max_bytes <= 0:
        raise SelectionError(f"`max_bytes` {max_bytes}: give a positive number")


def _check_suffix(output: Path) -> None:
    check_suffix(output, (PARQUET,), f"an atlas is Parquet: give FILE{PARQUET}")


def _check_online() -> None:
    from huggingface_hub import constants

    if constants.is_offline_mode():
        raise HubUnavailableError("HF_HUB_OFFLINE is set; unset it to reach the Hub")


@contextlib.contextmanager
def open_rows(output: Path, sigma: float, min_layers: float) -> Iterator[Journal]:
    """Open the rows of an atlas for one process.

    Raises:
        OutputError: something else is at ``output`` or where its rows go, the rows are of another
            criterion or damaged, or another process has them open.
    """
    path = rows_path(output)
    _check_ours(output, path)
    output.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        lock(file, output)
        yield _read_journal(output, file, sigma, min_layers)


def _check_ours(output: Path, path: Path) -> None:
    if not path.is_file():
        if output.exists() or path.exists():
            raise OutputError(
                f"`output` {output}: exists but is not an atlas with its rows; choose another path"
            )
        return
    with path.open("rb") as file:
        start = file.read(len(_START))
    if not _START.startswith(start):
        raise OutputError(
            f"`output` {output}: {path} exists but has no rows of an atlas; choose another path"
        )


def _read_journal(output: Path, file: BinaryIO, sigma: float, min_layers: float) -> Journal:
    layout = Layout(
        "an atlas",
        start=b'{"',
        key=lambda row: Target(row["model"], row["asked"]).key,
        note=lambda row: len(row.get("outliers", ())),
        header={"atlas": 1, "sigma": sigma, "min_layers": min_layers},
    )
    journal = Journal(rows_path(output), file, layout)
    header = journal.header or {}
    if header != layout.header:
        made = [f"`{n}` {header.get(n)}" for n in ("sigma", "min_layers")]
        raise OutputError(
            f"`output` {output}: was begun with {' '.join(made)}; give the same, or choose "
            "another path"
        )
    return journal


@dataclass
class _Reading:
    """An engine that counts what is read, and gives no row of what the Hub failed.

    ``missed`` are the rows of models that the network, the Hub or the token failed.
    """

    output: Path
    engine: Engine
    rows: int = 0
    bytes_read: int = 0
    missed: list[Row] = field(default_factory=list)

    def __call__(self, queue: JobQueue, work: Work) -> Iterator[Row]:
        in_a_row = 0
        for row in self.engine(queue, work):
            self.bytes_read += row.get("bytes_read", 0)
            if not row.pop("outage", False):
                in_a_row = 0
                self.rows += 1
                yield row
                continue
            self.missed.append(row)
            in_a_row += 1
            if in_a_row == OUTAGES:
                raise self.outage()

    def outage(self) -> HubUnavailableError:
        last = self.missed[-1]
        reason = last["error"].removeprefix(f"{last['model']}: ")
        return HubUnavailableError(
            f"{endpoint()}: {len(self.missed)} models could not be read, {last['model']} the last "
            f"({reason}); they have no row in {rows_path(self.output)}: run it again to go on"
        )


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
    needed = layers_needed(scan.min_layers, checkpoint.layers)  # before the norms are read
    _check_size(checkpoint, scan.max_bytes)
    zscores = read_zscores(checkpoint)
    standing = stand(zscores, scan.sigma)
    return {
        "revision": checkpoint.revision,
        "architecture": checkpoint.family.name,
        "layers": len(zscores.rows),
        "hidden_size": checkpoint.hidden_size,
        "outliers": [int(dim) for dim in standing.order if standing.counts[dim] >= needed],
        "flagged": standing.counts.tolist(),
        "strength": _rounded(standing.strength),
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
            "`max_bytes` sets what a model may cost"
        )


def _rounded(values: npt.NDArray[np.float64]) -> list[float]:
    rounded: list[float] = np.round(values, _DIGITS).tolist()
    return rounded
