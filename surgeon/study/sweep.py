"""A grid of operations, measured cell by cell into a folder of results."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surgeon.edit.staging import staged_file
from surgeon.errors import OutputError
from surgeon.evaluation.session import ProviderName
from surgeon.model import open_checkpoint
from surgeon.progress import Progress, silent
from surgeon.study.engines import DONE, Engine, Row, choose_engine
from surgeon.study.grid import Cell, Grid, Model, make_cells
from surgeon.study.measure import Measurer, hashes_of
from surgeon.study.run import (
    Entry,
    Journal,
    Outcome,
    Outlook,
    has_pyarrow,
    look_ahead,
    run_jobs,
    with_types,
)
from surgeon.study.sweep_folder import (
    LAYOUT,
    MODELS,
    ROWS,
    TABLE,
    check_folder,
    is_sweep,
    keep_grid,
    open_folder,
    sort_rows,
)


@dataclass(frozen=True)
class Sweep(Outcome):
    """A sweep that has run: its folder, and how many of its cells did what.

    ``others`` are rows of other grids that the folder keeps. ``table`` tells whether there is a
    Parquet file.
    """

    folder: Path
    others: int
    seconds: float
    table: bool

    def to_json(self) -> dict[str, Any]:
        """Return the document that ``sweep --json`` prints."""
        return {
            "folder": str(self.folder),
            "rows": str(self.folder / ROWS),
            **self.counts("cells"),
            "others": self.others,
            "seconds": self.seconds,
            "table": self.table,
        }


def run_sweep(
    grid: Grid,
    folder: Path,
    *,
    engine: Engine | None = None,
    provider: ProviderName = "auto",
    retry: bool = False,
    models: Path | None = None,
    progress: Progress = silent,
) -> Sweep:
    """Measure every cell of a grid that has no row in ``folder`` yet.

    The rows are in ``folder``/rows.jsonl, each as soon as its cell is done, in the order of the
    cells at the end, and with pyarrow also in rows.parquet. A run that was killed goes on where it
    stopped. A cell that fails has its error in its row.

    Args:
        grid: what to measure.
        folder: of the results. It is made, or is that of an earlier run.
        engine: what runs the cells (None: one process on this machine).
        provider: where onnxruntime runs.
        retry: whether cells that failed earlier are run again.
        models: where models are exported (None: in ``folder``).
        progress: called after each row.

    Raises:
        SelectionError: the grid has a cell that is not a valid recipe.
        OutputError: the folder is not a sweep's, or another sweep is writing there, or its rows
            are of a model whose files have changed since, or that is there no longer.
        CheckpointError: a model with rows there can no longer be opened.
    """
    cells, start = make_cells(grid), time.monotonic()
    keys = [cell.key for cell in cells]
    with open_folder(folder) as journal:
        hashes = _checked_hashes(folder, cells, journal.entries)
        _check_there(folder, cells, journal)
        keep_grid(folder, keys)
        outcome = run_jobs(
            cells,
            Measurer(models or folder / MODELS, provider, _sites(cells), hashes),
            journal,
            engine or choose_engine("local", 1),
            unit="cells",
            progress=progress,
            retry=retry,
        )
        others = sort_rows(folder, keys, journal)
        table = has_pyarrow()
        if table:
            _write_table(folder / TABLE, list(journal.rows(keys)))
    seconds = round(time.monotonic() - start, 3)
    return Sweep(**vars(outcome), folder=folder, others=others, seconds=seconds, table=table)


def preview_sweep(
    cells: Sequence[Cell], folder: Path | None, *, retry: bool = False, workers: int = 1
) -> Outlook:
    """Return what a sweep of these cells into a folder would do, and do nothing.

    Raises:
        OutputError: the folder is not a sweep's, or a row in it is damaged.
    """
    entries: dict[str, Entry] = {}
    if folder is not None:
        check_folder(folder)
    if folder is not None and is_sweep(folder):
        with (folder / ROWS).open("rb") as file:
            entries = Journal(folder / ROWS, file, LAYOUT).entries
    ended = (entries[cell.key] for cell in cells if cell.key in entries)
    took = [entry.seconds for entry in ended if entry.status == DONE]
    each = sum(took) / len(took) / workers if took else None
    return look_ahead(cells, entries, retry=retry, each=each)


def _checked_hashes(
    folder: Path, cells: Sequence[Cell], entries: Mapping[str, Entry]
) -> dict[Model, dict[str, str]]:
    """Return the hashes of the files that each model's rows are of; refuse one that changed.

    That is for models on this machine. Of one on the Hub it is known once it has been opened.
    """
    measured: dict[Model, list[dict[str, str]]] = {}
    for cell in cells:
        entry = entries.get(cell.key)
        if entry is not None and entry.status == DONE:
            measured.setdefault(cell.model, []).append(entry.note)
    for model, found in measured.items():
        if not model.is_here:
            continue
        now = hashes_of(open_checkpoint(model.place, sites_pattern=model.sites_pattern))
        if changed := sum(hashes != now for hashes in found):
            raise OutputError(
                f"`output` {folder}: {changed} of its rows were measured with other files of "
                f"{model.model}, which have changed since; choose another folder"
            )
    return {model: found[-1] for model, found in measured.items()}


def _check_there(folder: Path, cells: Sequence[Cell], journal: Journal) -> None:
    """Refuse a grid whose model has rows, and is no longer there: it would be one of the Hub."""
    gone = {cell.model.model for cell in cells if not cell.model.is_here}
    for row in journal.rows(journal.entries if gone else ()):
        if row["model"] in gone and row["status"] == DONE and row["record"]["revision"] is None:
            raise OutputError(
                f"`output` {folder}: has rows of {row['model']}, where there is no model now; put "
                "it back, or choose another folder"
            )


def _sites(cells: Sequence[Cell]) -> dict[Model, tuple[str, ...]]:
    found: dict[Model, set[str]] = {}
    for cell in cells:
        found.setdefault(cell.model, set()).update(cell.recipe.sites)
    return {model: tuple(sorted(sites)) for model, sites in found.items()}


def _write_table(path: Path, rows: Sequence[Row]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = max(rows, key=len).keys()  # a failed row has only some of them
    plain = [{name: row.get(name) for name in names} for row in rows]
    for row in plain:
        if row.get("record") is not None:
            row["record"] = json.dumps(row["record"])  # which has no fixed shape
    numbers = pa.list_(pa.int64())
    types = {
        "factor": pa.float64(),
        "dims": numbers,
        "layers": numbers,
        "warnings": pa.list_(pa.string()),
    }
    table = with_types(pa.Table.from_pylist(plain), types, pa.string())
    with staged_file(path) as staging:
        pq.write_table(table, staging)
