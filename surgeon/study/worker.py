"""What runs in a worker process: cells in, rows out, one open model at a time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from surgeon.errors import EvaluationError, SurgeonError
from surgeon.evaluation.session import ProviderName
from surgeon.study.cells import Cell
from surgeon.study.grid import Model
from surgeon.study.work import DONE, Row, failed_row, told

if TYPE_CHECKING:
    from surgeon.study.bench import Bench


@dataclass(frozen=True)
class Setup:
    """What all workers of a sweep share.

    ``folder`` is where they export models, and ``sites`` has those that the cells of each model
    edit. ``hashes`` are those of the files that an earlier run measured a model with.
    """

    folder: Path
    provider: ProviderName
    sites: Mapping[Model, tuple[str, ...]]
    hashes: Mapping[Model, Mapping[str, str]] = field(default_factory=dict)

    def worker(self) -> Worker:
        """Return a worker that has no model open."""
        return Worker(self)


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
            return failed_row(cell, told(error), time.monotonic() - start)
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
                _check_same(model, bench.hashes, setup.hashes.get(model))
            except Exception as error:
                self.refused[model] = told(error)
                raise
            self.benches[model] = bench
        return self.benches[model]


def _check_same(model: Model, now: Mapping[str, str], before: Mapping[str, str] | None) -> None:
    # Of a model on this machine the sweep has made sure; a branch on the Hub may have moved.
    if before is not None and now != before:
        raise EvaluationError(
            f"{model.model}: has other files than its rows that are there were measured with; "
            "name another output, or the revision of those rows"
        )
