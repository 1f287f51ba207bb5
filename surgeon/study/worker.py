"""What runs in a worker process: cells in, rows out, one open model at a time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from surgeon.errors import SurgeonError
from surgeon.evaluation.session import ProviderName
from surgeon.study.cells import Cell
from surgeon.study.grid import Model

if TYPE_CHECKING:
    from surgeon.study.bench import Bench

Row: TypeAlias = dict[str, Any]
"""A cell's line of results: plain JSON values by column."""

DONE, FAILED = "done", "failed"


@dataclass(frozen=True)
class Setup:
    """What all workers of a sweep share.

    ``folder`` is where they export models, and ``sites`` has those that the cells of each model
    edit.
    """

    folder: Path
    provider: ProviderName
    sites: Mapping[Model, tuple[str, ...]]


@dataclass(frozen=True)
class Worker:
    """Measures cells; keeps the last model open, and why a model could not be opened."""

    setup: Setup
    benches: dict[Model, Bench] = field(default_factory=dict)
    refused: dict[Model, str] = field(default_factory=dict)

    def row(self, cell: Cell) -> Row:
        """Measure a cell. Whatever goes wrong with it is in its row."""
        from surgeon.study.measure import measure

        start = time.monotonic()
        try:
            found = measure(self._bench(cell.model), cell)
        except Exception as error:  # noqa: BLE001  (a cell that fails costs one row, not the sweep)
            return failed_row(cell, _told(error), time.monotonic() - start)
        seconds = round(time.monotonic() - start, 3)
        return {**cell.to_json(), "status": DONE, "error": None, **found, "seconds": seconds}

    def _bench(self, model: Model) -> Bench:
        from surgeon.study.bench import open_bench

        if model in self.refused:
            raise SurgeonError(self.refused[model])
        if model not in self.benches:
            self.benches.clear()  # a model's memory before the next one's
            setup = self.setup
            try:
                bench = open_bench(model, setup.sites[model], setup.folder, setup.provider)
            except Exception as error:
                self.refused[model] = _told(error)
                raise
            self.benches[model] = bench
        return self.benches[model]


def failed_row(cell: Cell, error: str, seconds: float = 0.0) -> Row:
    """Return the row of a cell that gave no result."""
    return {**cell.to_json(), "status": FAILED, "error": error, "seconds": round(seconds, 3)}


def _told(error: Exception) -> str:
    kind = "" if isinstance(error, SurgeonError) else f"{type(error).__name__}: "
    return f"{kind}{' '.join(str(error).split())}"
