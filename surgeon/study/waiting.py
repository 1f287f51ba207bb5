"""Which cell is next: one of the model that a worker has open, as long as there is one."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable

from surgeon.study.cells import Cell
from surgeon.study.grid import Model


class Waiting:
    """The cells that no worker has yet, by model."""

    def __init__(self, cells: Iterable[Cell]) -> None:
        self._by_model: dict[Model, deque[Cell]] = {}
        self._taken: Counter[Model] = Counter()
        for cell in cells:
            self._by_model.setdefault(cell.model, deque()).append(cell)

    def __len__(self) -> int:
        return sum(map(len, self._by_model.values()))

    def take(self, after: Cell | None) -> Cell | None:
        """Return a cell of the same model, or of the one that fewest workers have taken up."""
        if not self._by_model:
            return None
        model = after.model if after else None
        if model is None or model not in self._by_model:
            model = min(self._by_model, key=self._taken.__getitem__)
            self._taken[model] += 1
        cells = self._by_model[model]
        cell = cells.popleft()
        if not cells:
            del self._by_model[model]
        return cell
