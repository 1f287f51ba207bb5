"""What a sweep will cost, from its cells alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from surgeon.errors import EvaluationError
from surgeon.study.cells import Cell
from surgeon.surgery.expectation import EvaluationSettings
from surgeon.text import built_in_sample, read_texts

CONTROLS = 10
"""How many random removals a cell is compared with where no setting says otherwise."""


@dataclass(frozen=True)
class Cost:
    """How much there is to do.

    ``variants`` is how often a model goes through its texts, about: the baselines, the cells, and
    the random removals, of which cells of the same shape have most in common. ``texts`` is the
    number of texts in all of these.
    """

    models: int
    cells: int
    variants: int
    texts: int

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def cost_of(cells: tuple[Cell, ...]) -> Cost:
    """Count what the cells take; data that cannot be read count nothing."""
    runs: dict[object, EvaluationSettings] = {}
    for cell in cells:
        recipe, settings = cell.recipe, cell.evaluation
        size = len(recipe.dims or ()) or recipe.random or recipe.remove_outliers
        what = (recipe.mode, recipe.factor, recipe.params, recipe.layers, recipe.sites)
        shape = (cell.model, settings, size, what)
        runs[cell.key] = settings
        runs["baseline", cell.model, settings] = settings
        for number in range(settings.controls or CONTROLS):
            runs["control", shape, number] = settings
    lengths = {settings: _texts(settings) for settings in set(runs.values())}
    return Cost(
        models=len({cell.model for cell in cells}),
        cells=len(cells),
        variants=len(runs),
        texts=sum(lengths[settings] for settings in runs.values()),
    )


def _texts(settings: EvaluationSettings) -> int:
    if settings.data is None:
        return len(built_in_sample().lines)
    try:
        return len(read_texts(Path(settings.data)).lines)
    except EvaluationError:
        return 0
