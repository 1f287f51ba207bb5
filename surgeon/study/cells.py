"""Grid → cells: each one model, one complete recipe and the evaluation that belongs to it."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from blake3 import blake3

from surgeon.edit.recipe import Recipe, recipe_from_json
from surgeon.errors import EvaluationError
from surgeon.ranking import MEASURED
from surgeon.study.grid import (
    Fields,
    Grid,
    Model,
    expand_operation,
    expand_selection,
)
from surgeon.tasks.options import CONTROLS, EvaluationSettings
from surgeon.text import built_in_sample, read_texts

_KEY_BYTES = 12  # of a hash; two of a million cells share one in 10¹⁷ cases


@dataclass(frozen=True)
class Cell:
    """One operation on one model and its evaluation.

    ``key`` stands for all of it, the content of its data included, so that its row is found in
    another run.
    """

    key: str
    model: Model
    recipe: Recipe

    @property
    def group(self) -> Model:
        """What it shares with other cells: the model, open for one after the other."""
        return self.model

    @property
    def evaluation(self) -> EvaluationSettings:
        """How the cell is measured."""
        return self.recipe.evaluation or EvaluationSettings()

    def to_json(self) -> dict[str, Any]:
        """Return what the cell is, as a row says it."""
        recipe, evaluation = self.recipe, self.evaluation
        return {
            "cell": self.key,
            "model": self.model.model,
            "revision": self.model.revision,
            "sites_pattern": self.model.sites_pattern,
            "operation": recipe.summary,
            "selection": _selection(recipe),
            "dims": list(recipe.dims) if recipe.dims is not None else None,
            "mode": recipe.mode,
            "factor": recipe.factor,
            "params": list(recipe.params),
            "layers": list(recipe.layers) if recipe.layers is not None else None,
            "sites": list(recipe.sites),
            "task": evaluation.task,
            "data": evaluation.data,
            "seed": evaluation.seed,
        }


def _selection(recipe: Recipe) -> str:
    if recipe.dims is not None:
        return "dims"
    return "random" if recipe.random is not None else recipe.method or MEASURED


def make_cells(grid: Grid) -> tuple[Cell, ...]:
    """Return every cell of a grid, each once, in the order of its axes.

    Raises:
        SelectionError: a combination of them is not a valid recipe.
    """
    selections = [chosen for entry in grid.selections for chosen in expand_selection(entry)]
    operations = [made for entry in grid.operations for made in expand_operation(entry)]
    layers = [{} if entry is None else {"layers": entry} for entry in grid.layers]
    found: dict[str, Cell] = {}
    hash_of = cache(_hash_of)
    for model, *parts, task, seed in itertools.product(
        grid.models, selections, operations, layers, grid.tasks, grid.seeds
    ):
        recipe = _recipe(parts, task, seed)
        key = _key(model, recipe, hash_of)
        found.setdefault(key, Cell(key, model, recipe))
    return tuple(found.values())


def size_of(grid: Grid) -> int:
    """Return how many cells a grid has at most, without making them."""
    selections = sum(1 for entry in grid.selections for _ in expand_selection(entry))
    operations = sum(1 for entry in grid.operations for _ in expand_operation(entry))
    others = (grid.models, grid.layers, grid.tasks, grid.seeds)
    return selections * operations * math.prod(map(len, others))


def _recipe(parts: list[Fields], task: EvaluationSettings, seed: int) -> Recipe:
    fields = {name: value for part in parts for name, value in part.items()}
    own = fields.pop("evaluation", None) or {}
    fields["evaluation"] = {**own, **task.given(), "seed": seed}
    # The seed of random dimensions; of others it would make one operation look like several.
    fields["seed"] = 0 if fields.get("random") is None else seed
    return recipe_from_json(fields, "grid")


def _key(model: Model, recipe: Recipe, hash_of: Callable[[str], str]) -> str:
    content = recipe.to_json()
    for name in ("description", "model", "expect"):  # what is said of it, not what it is
        content.pop(name)
    if data := content["evaluation"]["data"]:
        content["evaluation"]["data"] = hash_of(data)
    document = json.dumps([model.model_dump(), content], sort_keys=True)
    return blake3(document.encode()).hexdigest(_KEY_BYTES)


def _hash_of(path: str) -> str:
    # A file that is not there is an error of the cells that need it, not of the grid.
    return blake3(Path(path).read_bytes()).hexdigest() if Path(path).is_file() else path


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
