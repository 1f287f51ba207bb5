"""What a sweep has still to do, by the rows that are in its folder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from surgeon.study import results
from surgeon.study.axes import expand_operation, expand_selection
from surgeon.study.cells import Cell
from surgeon.study.grid import Grid
from surgeon.study.work import DONE, FAILED


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
