"""The outlier dimensions of many models on the Hub, as one table."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from surgeon.errors import HubUnavailableError, OutputError, SelectionError
from surgeon.model.hub_errors import endpoint
from surgeon.progress import Progress, silent
from surgeon.ranking.layernorm import MIN_LAYERS, check_sigma
from surgeon.ranking.ranking import SIGMA
from surgeon.study.engines import DONE, Engine, JobQueue, Row, Work, choose_engine
from surgeon.study.run import (
    PARQUET,
    Entry,
    Journal,
    Layout,
    Outcome,
    Outlook,
    check_table,
    lock_output,
    look_ahead,
    open_table,
    run_jobs,
)
from surgeon.study.targets import Scan, Target, targets_of

WORKERS = 4
RATE = 1.5
"""Models a second: 450 in five minutes, where the Hub answers 500 requests of a stranger."""
MAX_BYTES = 500_000_000
OUTAGES = 5
"""So many models in a row that the network, the Hub or the token failed: then the run stops."""

_GROUP = 64  # models of the table that are in memory at once


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
    models: str | Path | Iterable[str | Target],
    output: str | Path,
    *,
    engine: Engine | None = None,
    sigma: float = SIGMA,
    min_layers: float = MIN_LAYERS,
    max_bytes: float = MAX_BYTES,
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
        models: Hub ids, with ``@revision`` or without, or a file with one per line.
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
    from huggingface_hub import constants

    output = Path(output)
    targets, start = targets_of(models), time.monotonic()
    _check(output, sigma, min_layers, max_bytes, rate)
    if constants.is_offline_mode():
        raise HubUnavailableError("HF_HUB_OFFLINE is set; unset it to reach the Hub")
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
        if journal.entries or not reading.missed:
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
    models: str | Path | Iterable[str | Target],
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
    _check(output, sigma, min_layers, MAX_BYTES, rate)
    entries: dict[str, Entry] = {}
    if output is not None:
        path = rows_path(output)
        _check_ours(output, path)
        if path.is_file():
            with path.open("rb") as file:
                entries = _read_journal(output, file, sigma, min_layers).entries
    return look_ahead(targets, entries, retry=retry, each=1 / rate)


def rows_path(output: Path) -> Path:
    """Return where the rows of a table are."""
    return output.with_name(f"{output.name}.rows.jsonl")


def _check(
    output: Path | None, sigma: float, min_layers: float, max_bytes: float, rate: float
) -> None:
    check_sigma(sigma)
    if not (0 < min_layers < 1 or (1 <= min_layers < math.inf and min_layers == int(min_layers))):
        raise SelectionError(
            f"`min_layers` {min_layers:g}: give a count, or a share of the layers below 1"
        )
    if not (math.isfinite(rate) and rate > 0):
        raise SelectionError(f"`rate` {rate:g}: give a positive number of models per second")
    if not max_bytes > 0:
        raise SelectionError("`max_bytes`: give a positive number")
    if output is not None:
        check_table(output, (PARQUET,), f"an atlas is Parquet: give FILE{PARQUET}")


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
        lock_output(file, output)
        yield _read_journal(output, file, sigma, min_layers)


def _check_ours(output: Path, path: Path) -> None:
    if not path.is_file() and (output.exists() or path.exists()):
        raise OutputError(
            f"`output` {output}: exists but is not an atlas with its rows; choose another path"
        )


def _read_journal(output: Path, file: BinaryIO, sigma: float, min_layers: float) -> Journal:
    layout = Layout(
        "an atlas",
        start=b'{"model":',
        key=lambda row: Target(row["model"], row["asked"]).key,
        note=lambda row: len(row.get("outliers", ())),
        header={"atlas": 1, "sigma": float(sigma), "min_layers": float(min_layers)},
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
    bytes_read: int = 0
    missed: list[Row] = field(default_factory=list)

    def __call__(self, queue: JobQueue, work: Work) -> Iterator[Row]:
        in_a_row = 0
        for row in self.engine(queue, work):
            self.bytes_read += row.get("bytes_read", 0)
            if not row.pop("outage", False):
                in_a_row = 0
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
            f"{endpoint()}: could not read {len(self.missed)} of the models, {last['model']} last "
            f"({reason}), so {rows_path(self.output)} has no row of them: run it again to go on"
        )


def write_atlas(output: Path, rows: Iterable[Row]) -> None:
    """Write the rows of models as Parquet, which appears whole or not at all."""
    import pyarrow as pa

    schema = _schema(pa)
    with open_table(output, schema, force=True) as writer:
        batches = (_batch(pa, schema, row) for row in rows)
        while group := list(itertools.islice(batches, _GROUP)):
            writer.write_table(pa.Table.from_batches(group))


def _schema(pa: Any) -> Any:
    types = {
        ("model", "asked", "revision", "architecture"): pa.string(),
        ("layers", "hidden_size", "dim"): pa.int32(),
        ("score",): pa.float64(),
        ("strength", "gain_z", "bias_z", "max_gain_z"): pa.float32(),
        ("outlier",): pa.bool_(),
        ("status", "error"): pa.string(),
        ("bytes_read",): pa.int64(),
        ("seconds",): pa.float64(),
    }
    return pa.schema([(name, kind) for names, kind in types.items() for name in names])


def _batch(pa: Any, schema: Any, row: Row) -> Any:
    """Return a model's rows: one per dimension, or one that says why there are none."""
    dims = _by_dim(row) if row["status"] == DONE else {}
    size = len(dims["dim"]) if dims else 1
    columns = [
        pa.array(dims[field.name], field.type)
        if dims.get(field.name) is not None
        else pa.repeat(pa.scalar(row.get(field.name), field.type), size)
        for field in schema
    ]
    return pa.record_batch(columns, schema=schema)


def _by_dim(row: Row) -> dict[str, Any]:
    dims = np.arange(row["hidden_size"])
    return {
        "dim": dims,
        "score": np.array(row["flagged"]) / row["layers"],
        "outlier": np.isin(dims, row["outliers"]),
        **{name: row[name] for name in ("strength", "gain_z", "bias_z", "max_gain_z")},
    }
