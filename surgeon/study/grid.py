"""A sweep as a person writes it, a YAML file of models, selections, operations and tasks → cells.

A cell is one model, one complete recipe and the evaluation that belongs to it.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Self, TypeAlias

from blake3 import blake3
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    ValidationInfo,
    model_validator,
)

from surgeon.edit.recipe import WAYS, Dims, Recipe, parse_numbers, recipe_from_json
from surgeon.edit.recipe_file import Checked, check_file, find_recipe, load_recipe
from surgeon.errors import EvaluationError, SelectionError
from surgeon.model.hub import parse_hub_id
from surgeon.ranking import MEASURED
from surgeon.settings import Problem, Seed, SettingsError, SettingsModel, Some, contradiction
from surgeon.tasks.data import HUB_PREFIX
from surgeon.tasks.registry import CONTROLS, EvaluationSettings
from surgeon.text import built_in_sample, read_texts

Fields: TypeAlias = Mapping[str, Any]
"""Some fields of a recipe."""

_WAYS = (*WAYS, "each", "recipe")
_CHOICE = (*_WAYS, "method", "sigma", "min_layers", "min_damage", "relax")
_ELSEWHERE = {"seed": "seeds", "evaluation": "tasks"}


def _selection(fields: Fields, info: ValidationInfo) -> Fields:
    way, *others = [name for name in fields if name in _WAYS] or [""]
    why = f"chooses dimensions, which {way}: does too; keep one"
    _refuse("selections", fields, dict.fromkeys(others, why))
    try:
        if way == "each":
            return {**fields, way: _numbers(fields[way])}
        if way == "recipe":
            path = str(find_recipe(str(fields[way]), info.context))
            load_recipe(path)
            return {**fields, way: path}
    except (ValueError, SelectionError) as error:
        raise contradiction([Problem((way,), str(error))]) from error
    return fields


def _operation(fields: Fields) -> Fields:
    clashes = dict.fromkeys(_CHOICE, "chooses dimensions, which selections: does")
    if fields.get("factor") == []:
        clashes["factor"] = "give one number or more; found []"
    _refuse("operations", fields, clashes)
    return fields


def _refuse(axis: str, fields: Fields, clashes: Mapping[str, str]) -> None:
    elsewhere = {
        name: f"is not for one of the {axis}; {other}: has it" for name, other in _ELSEWHERE.items()
    }
    wrong = {name: why for name, why in {**clashes, **elsewhere}.items() if name in fields}
    if wrong:
        raise contradiction(Problem((name,), why, in_name=True) for name, why in wrong.items())


def _layers(entry: object) -> object:
    return None if entry is None or entry == "all" else _numbers(entry)


def _numbers(entry: object) -> Dims:
    parts = entry if isinstance(entry, list | tuple) else (entry,)
    return parse_numbers(",".join(map(str, parts)))


class Model(SettingsModel):
    """A model of a sweep: a directory, a weight file or a Hub id, as ``open_checkpoint`` takes.

    A path starts from the folder of the grid's file. Rows have it as the grid does, so that they
    are those of the same cell when a study was moved.
    """

    model: str
    revision: str | None = None
    sites_pattern: str | None = None
    _folder: Path = PrivateAttr(Path())

    def model_post_init(self, context: Path | None, /) -> None:
        """Keep the folder of the grid's file."""
        self._folder = context or Path()

    def as_written(self, path: str) -> str:
        """Return a path of the same grid as its file has it."""
        inside = Path(path).is_relative_to(self._folder)
        return str(Path(path).relative_to(self._folder)) if inside else path

    @property
    def is_here(self) -> bool:
        """Whether it is a path where something is; a Hub id looks like one."""
        return (self._folder / self.model).exists()

    @property
    def place(self) -> str:
        """Its path, or its Hub id."""
        return str(self._folder / self.model) if self.is_here else self.model


class Grid(SettingsModel):
    """Every model × selection × operation × layers × task × seed is a cell of the sweep.

    ``selections`` and ``operations`` hold fields of recipes. A selection may say ``each`` (such as
    0-383 or a list: as many selections of one dimension) or ``recipe`` (the name or file of one,
    whose fields it takes over); an operation may list several numbers as its ``factor``. ``layers``
    are lists such as 0-5,11 or [0, 1], or all (None). A seed is that of random dimensions, masks,
    controls and the interval. Paths of models, recipes and data start from the grid's file. What
    one axis says, no other may say too.
    """

    models: Some[
        Annotated[Model, BeforeValidator(lambda m: {"model": m} if isinstance(m, str) else m)]
    ]
    selections: Some[Annotated[Fields, AfterValidator(_selection)]]
    operations: Some[Annotated[Fields, AfterValidator(_operation)]] = ({},)
    layers: Some[Annotated[Dims | None, BeforeValidator(_layers)]] = (None,)
    tasks: Some[EvaluationSettings] = Field(default_factory=lambda: (EvaluationSettings(),))
    seeds: Some[Seed] = (0,)
    description: str = ""

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        problems = [*_wrong_tasks(self), *_said_twice(self)]
        if problems := problems or [*_wrong_recipes(self)]:
            raise contradiction(problems)
        return self


def check_grid(path: Path) -> Checked[Grid]:
    """Read a grid's file and find everything that is wrong with it.

    Raises:
        SelectionError: there is no such file.
    """
    if not path.is_file():
        found = "is a directory" if path.is_dir() else "no such file"
        raise SelectionError(f"{path}: {found}; name a YAML file with a grid")
    return check_file(Grid, path)


def expand_selection(fields: Fields) -> Iterator[Fields]:
    """Yield the fields of each selection that one entry of ``selections`` stands for."""
    rest = {name: value for name, value in fields.items() if name not in ("each", "recipe")}
    if "recipe" in fields:
        rest = load_recipe(fields["recipe"]).model_dump(exclude_none=True) | rest
    if "each" not in fields:
        yield rest
    for dim in fields.get("each", ()):
        yield {**rest, "dims": (dim,)}


def expand_operation(fields: Fields) -> Iterator[Fields]:
    """Yield the fields of each operation that one entry of ``operations`` stands for."""
    factors = fields.get("factor")
    if not isinstance(factors, list | tuple):
        yield fields
        return
    for factor in factors:
        yield {**fields, "factor": factor}


def name_missing_models(grid: Grid) -> Iterator[str]:
    """Yield which models are not on this machine, so that they cost rows if the Hub has none."""
    for name in (model.model for model in grid.models if not model.is_here):
        if parse_hub_id(name) is not None:
            yield f"{name} is not here, so it is taken for a model on the Hub"
        else:
            yield f"{name}: no such directory or file; its cells would fail"


def _wrong_tasks(grid: Grid) -> Iterator[Problem]:
    for number, task in enumerate(grid.tasks):
        for name in ("dose", "until_certain", "quantize", "seed"):
            if getattr(task, name) is not None:
                elsewhere = "; seeds: has its seeds" if name == "seed" else ""
                yield Problem(("tasks", number, name), f"is not for a sweep{elsewhere}")
        if _missing(task.data):
            yield Problem(("tasks", number, "data"), f"{task.data}: no such file")


def _missing(data: str | None) -> bool:
    return data is not None and not data.startswith(HUB_PREFIX) and not Path(data).exists()


def _said_twice(grid: Grid) -> Iterator[Problem]:
    """Yield what an entry says that another axis would silently replace."""
    selections = [(("selections", n), entry) for n, entry in enumerate(grid.selections)]
    operations = [(("operations", n), entry) for n, entry in enumerate(grid.operations)]
    if any(layers is not None for layers in grid.layers):
        for path, entry in selections + operations:
            if entry.get("layers") is not None:
                why = "layers: of the grid has them too; say it in one of the two"
                yield Problem((*path, "layers"), why, in_name=True)
    for path, operation in operations:
        for name in operation:
            for (axis, number), selection in selections:
                if name in selection:
                    why = f"{axis}.{number} has it too; say it in one of the two"
                    yield Problem((*path, name), why, in_name=True)
                    break


def _wrong_recipes(grid: Grid) -> Iterator[Problem]:
    for number, selection in enumerate(grid.selections):
        chosen = next(expand_selection(selection))
        data = chosen.get("evaluation", {}).get("data")
        if _missing(data) and any(task.data is None for task in grid.tasks):
            why = f"its evaluation's data, {data}: no such file"
            yield Problem(("selections", number, "recipe"), why)
        for other, entry in enumerate(grid.operations):
            for operation in expand_operation(entry):
                try:
                    Recipe.read({**chosen, **operation})
                except SettingsError as error:
                    for problem in error.problems:
                        there = problem.path[:1] and problem.path[0] in entry
                        axis = ("operations", other) if there else ("selections", number)
                        yield replace(problem, path=(*axis, *problem.path))


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
            "selection": _make_selection(recipe),
            "dims": recipe.dims,
            "mode": recipe.mode,
            "factor": recipe.factor,
            "params": recipe.params,
            "layers": recipe.layers,
            "sites": recipe.sites,
            "task": evaluation.task,
            "data": evaluation.data and self.model.as_written(evaluation.data),
            "seed": evaluation.seed,
        }


def _make_selection(recipe: Recipe) -> str:
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
    content["evaluation"].pop("quantize")  # which no cell has
    if data := content["evaluation"]["data"]:
        content["evaluation"]["data"] = hash_of(data)
    document = json.dumps([model.model_dump(), model.is_here, content], sort_keys=True)
    return blake3(document.encode()).hexdigest(_KEY_BYTES)


def _hash_of(path: str) -> str:
    # A file that is not there is an error of the cells that need it, not of the grid.
    return blake3(Path(path).read_bytes()).hexdigest() if Path(path).is_file() else path


@dataclass(frozen=True)
class Effort:
    """How much there is to do.

    ``variants`` is how often a model goes through its texts, about: the baselines, the cells, and
    the random removals, of which cells of the same shape have most in common. ``texts`` is the
    number of texts in all of these.
    """

    models: int
    cells: int
    variants: int
    texts: int


def effort_of(cells: tuple[Cell, ...]) -> Effort:
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
    return Effort(
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
