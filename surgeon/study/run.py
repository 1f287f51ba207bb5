"""Grid → rows: what is left to do, done by an engine, each row kept as it comes."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from surgeon.errors import OutputError
from surgeon.evaluation.session import ProviderName
from surgeon.model import open_checkpoint
from surgeon.progress import Progress, duration, silent
from surgeon.study import journal, results
from surgeon.study.atlas_table import reason_of
from surgeon.study.cells import Cell, make_cells
from surgeon.study.engines import Engine, choose_engine
from surgeon.study.grid import Grid, Model, expand_operation, expand_selection
from surgeon.study.jobs import DONE, FAILED, JobQueue, Row
from surgeon.study.measure import Measurer, hashes_of


@dataclass(frozen=True)
class Sweep:
    """A sweep that has run: its folder, and how many of its cells did what.

    ``kept`` were done by an earlier run. ``others`` are rows of other grids that the folder keeps.
    ``reasons`` are those of the failures with their number, the most frequent first. ``table``
    tells whether there is a Parquet file.
    """

    folder: Path
    cells: int
    done: int
    failed: int
    kept: int
    others: int
    reasons: tuple[tuple[str, int], ...]
    seconds: float
    table: bool

    def to_json(self) -> dict[str, Any]:
        """Return the document that ``sweep --json`` prints."""
        reasons = [{"reason": reason, "cells": cells} for reason, cells in self.reasons]
        paths = {"folder": str(self.folder), "rows": str(self.folder / results.ROWS)}
        return {**vars(self), **paths, "reasons": reasons}


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

    The rows are in ``folder``/rows.jsonl, each from the moment its cell is done, in the order of
    the cells at the end, and with pyarrow also in rows.parquet. A run that was killed goes on
    where it stopped. A cell that fails has its error in its row.

    Args:
        grid: what to measure.
        folder: of the results. It is made, or is that of an earlier run.
        engine: what runs the cells (None: one process on this machine).
        provider: where onnxruntime runs.
        retry: whether cells that failed earlier are run again.
        models: where models are exported (None: in ``folder``).
        progress: told of each row.

    Raises:
        SelectionError: the grid has a cell that is no valid recipe.
        OutputError: the folder is not a sweep's, or another sweep is writing there, or its rows
            are of a model whose files have changed since.
        CheckpointError: a model with rows there can be opened no more.
    """
    run = engine or choose_engine("local", 1)
    cells, start = make_cells(grid), time.monotonic()
    with results.opened(folder) as (rows, file):
        ended = {DONE} if retry else {DONE, FAILED}
        left = [cell for cell in cells if rows.get(cell.key, {}).get("status") not in ended]
        hashes = _checked_hashes(folder, cells, rows)
        measurer = Measurer(models or folder / results.MODELS, provider, _sites(cells), hashes)
        results.keep_grid(folder, [cell.key for cell in cells])
        kept = len(cells) - len(left)
        failed = kept - _done(rows, cells)
        progress(_told(kept, failed, len(cells)), kept, len(cells))
        first = 0.0
        for count, row in enumerate(run(JobQueue(left), measurer) if left else (), start=kept + 1):
            journal.append(file, row)
            rows[row["cell"]] = row
            failed += row["status"] == FAILED
            now, others = time.monotonic(), count - kept - 1
            first = first or now  # before which models were exported
            pace = (now - first) / others if others else None
            progress(_told(count, failed, len(cells), pace), count, len(cells))
        table, others = results.finish(folder, [cell.key for cell in cells], rows)
    seconds = round(time.monotonic() - start, 3)
    return Sweep(
        folder=folder,
        cells=len(cells),
        done=len(cells) - failed,
        failed=failed,
        kept=kept,
        others=others,
        reasons=_reasons([rows[cell.key] for cell in cells]),
        seconds=seconds,
        table=table,
    )


def _reasons(rows: Sequence[Row]) -> tuple[tuple[str, int], ...]:
    failed = [row for row in rows if row["status"] == FAILED]
    return tuple(Counter(reason_of(row["error"], row["model"]) for row in failed).most_common())


def _sites(cells: Sequence[Cell]) -> dict[Model, tuple[str, ...]]:
    found: dict[Model, set[str]] = {}
    for cell in cells:
        found.setdefault(cell.model, set()).update(cell.recipe.sites)
    return {model: tuple(sorted(sites)) for model, sites in found.items()}


def _checked_hashes(
    folder: Path, cells: Sequence[Cell], rows: Mapping[str, Row]
) -> dict[Model, dict[str, str]]:
    """Return the hashes of the files that each model's rows are of; refuse one that changed.

    That is for models on this machine. Of one on the Hub it is known once it has been opened.
    """
    measured: dict[Model, list[dict[str, str]]] = {}
    for cell in cells:
        row = rows.get(cell.key, {})
        if row.get("status") == DONE:
            measured.setdefault(cell.model, []).append(row["record"]["files"])
    for model, found in measured.items():
        if not Path(model.model).exists():
            continue
        now = hashes_of(open_checkpoint(model.model, sites_pattern=model.sites_pattern))
        if others := [hashes for hashes in found if hashes != now]:
            raise OutputError(
                f"-o {folder}: {len(others)} of its rows were measured with other files of "
                f"{model.model}, which have changed since; name another folder"
            )
    return {model: found[-1] for model, found in measured.items()}


def _done(rows: dict[str, Row], cells: Sequence[Cell]) -> int:
    return sum(rows.get(cell.key, {}).get("status") == DONE for cell in cells)


def _told(ended: int, failed: int, cells: int, pace: float | None = None) -> str:
    """Say how far the sweep is, and how long the rest takes at ``pace`` seconds a cell."""
    told = f"{ended} of {cells} cells" + (f", {failed} failed" if failed else "")
    if pace is None or ended == cells:
        return told
    return f"{told}, about {duration(pace * (cells - ended))} left"


@dataclass(frozen=True)
class SweepOutlook:
    """How many cells have a row, how many are to run, and for how many seconds, about.

    ``seconds`` is None where no cell is done yet, whose time would tell.
    """

    done: int
    failed: int
    left: int
    seconds: float | None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def look_ahead(
    cells: Sequence[Cell], folder: Path | None, *, retry: bool = False, workers: int = 1
) -> SweepOutlook:
    """Tell what a sweep of these cells into a folder would do, and do nothing.

    Raises:
        OutputError: a row in the folder is damaged.
    """
    path = folder / results.ROWS if folder else None
    rows: dict[str, tuple[str, float]] = {}
    if path is not None and path.is_file():
        with path.open("rb") as file:
            for cell, row in results.read(path, file):
                rows[cell] = row.get("status", ""), row.get("seconds", 0.0)
    ended = [rows[cell.key] for cell in cells if cell.key in rows]
    failed = sum(status == FAILED for status, _ in ended)
    took = [seconds for status, seconds in ended if status == DONE]
    left = len(cells) - len(took) - (0 if retry else failed)
    seconds = round(sum(took) / len(took) * left / workers, 1) if took else None
    return SweepOutlook(len(took), failed, left, seconds)


def size_of(grid: Grid) -> int:
    """Return how many cells a grid has at most, without making them."""
    selections = sum(1 for entry in grid.selections for _ in expand_selection(entry))
    operations = sum(1 for entry in grid.operations for _ in expand_operation(entry))
    others = (grid.models, grid.layers, grid.tasks, grid.seeds)
    return selections * operations * math.prod(map(len, others))
