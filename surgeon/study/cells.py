"""Grid → cells: each one model, one complete recipe and the evaluation that belongs to it."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from blake3 import blake3

from surgeon.study.axes import Fields, expand_operation, expand_selection, parse_layers
from surgeon.study.grid import Grid, Model
from surgeon.surgery.expectation import EvaluationSettings
from surgeon.surgery.recipe import Recipe, recipe_from_json

_KEY_BYTES = 12  # of a hash; two of a million cells share one in 10¹⁷ cases


@dataclass(frozen=True)
class Cell:
    """One operation on one model and its evaluation.

    ``key`` stands for all of it, the content of its data included, so that a row can be told to
    be this cell's in another run.
    """

    key: str
    model: Model
    recipe: Recipe

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
    return "random" if recipe.random is not None else recipe.method


def make_cells(grid: Grid) -> tuple[Cell, ...]:
    """Return every cell of a grid, each once, in the order of its axes.

    Raises:
        SelectionError: a combination of them is no valid recipe.
    """
    selections = [chosen for entry in grid.selections for chosen in expand_selection(entry)]
    operations = [made for entry in grid.operations for made in expand_operation(entry)]
    layers = [parse_layers(entry) for entry in grid.layers]
    found: dict[str, Cell] = {}
    hash_of = cache(_hash_of)
    for model, *parts, task, seed in itertools.product(
        grid.models, selections, operations, layers, grid.tasks, grid.seeds
    ):
        entry = Model(model) if isinstance(model, str) else model
        recipe = _recipe(parts, task, seed)
        key = _key(entry, recipe, hash_of)
        found.setdefault(key, Cell(key, entry, recipe))
    return tuple(found.values())


def _recipe(parts: list[Fields], task: EvaluationSettings, seed: int) -> Recipe:
    fields = {name: value for part in parts for name, value in part.items()}
    own = fields.pop("evaluation", None) or {}
    recipe = recipe_from_json(fields, "grid")
    evaluation = EvaluationSettings(**{**own, **task.given(), "seed": seed})
    # The seed of random dimensions; of others it would make one operation look like several.
    drawn = seed if recipe.random is not None else Recipe.seed
    return replace(recipe, seed=drawn, evaluation=evaluation)


def _key(model: Model, recipe: Recipe, hash_of: Callable[[str], str]) -> str:
    content = recipe.to_json()
    for name in ("description", "model", "expect"):  # what is said of it, not what it is
        content.pop(name)
    if data := content["evaluation"]["data"]:
        content["evaluation"]["data"] = hash_of(data)
    document = json.dumps([dataclasses.asdict(model), content], sort_keys=True)
    return blake3(document.encode()).hexdigest(_KEY_BYTES)


def _hash_of(path: str) -> str:
    # A file that is not there is an error of the cells that need it, not of the grid.
    return blake3(Path(path).read_bytes()).hexdigest() if Path(path).is_file() else path
