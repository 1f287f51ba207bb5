"""A sweep as a person writes it: a YAML file of models, selections, operations and tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Self, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from surgeon.edit.recipe import WAYS, Dims, Recipe, parse_numbers
from surgeon.edit.recipe_file import Checked, check_file, find_recipe, load_recipe
from surgeon.errors import SelectionError
from surgeon.model.hub import parse_hub_id
from surgeon.settings import Problem, Seed, SettingsError, SettingsModel, Some, contradiction
from surgeon.tasks.data import PREFIX
from surgeon.tasks.options import EvaluationSettings

Fields: TypeAlias = Mapping[str, Any]
"""Some fields of a recipe."""

_WAYS = (*WAYS, "each", "recipe")
_CHOICE = (*_WAYS, "method", "sigma", "min_layers", "min_damage", "relax")
_ELSEWHERE = {"seed": "seeds", "evaluation": "tasks"}


def _here_or_on_the_hub(name: str, info: ValidationInfo) -> str:
    # A Hub id looks like a relative path; it is one where there is something.
    local = (info.context or Path()) / name
    return str(local) if info.context and local.exists() else name


def _model_fields(entry: object) -> object:
    return {"model": entry} if isinstance(entry, str) else entry


def _selection(fields: Fields, info: ValidationInfo) -> Fields:
    way, *others = [name for name in fields if name in _WAYS] or [""]
    why = f"chooses dimensions, which {way}: does too; keep one"
    _refuse("selections", fields, dict.fromkeys(others, why))
    try:
        if way == "each":
            return {**fields, way: parse_numbers(str(fields[way]))}
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
    if entry is None or entry == "all":
        return None
    return entry if isinstance(entry, tuple) else parse_numbers(str(entry))


class Model(SettingsModel):
    """A model of a sweep: a directory, a weight file or a Hub id, as ``open_checkpoint`` takes."""

    model: Annotated[str, AfterValidator(_here_or_on_the_hub)]
    revision: str | None = None
    sites_pattern: str | None = None


class Grid(SettingsModel):
    """Every model × selection × operation × layers × task × seed is a cell of the sweep.

    ``selections`` and ``operations`` hold fields of recipes. A selection may say ``each`` (such as
    0-383: as many selections of one dimension) or ``recipe`` (the name or file of one, whose
    fields it takes over); an operation may list several numbers as its ``factor``. ``layers`` are
    lists such as 0-5,11, or all (None). A seed is that of random dimensions, masks, controls and
    the interval. Paths of models, recipes and data start from the grid's file. What one axis says,
    no other may say too.
    """

    models: Some[Annotated[Model, BeforeValidator(_model_fields)]]
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


def load_grid(path: Path) -> Grid:
    """Read a grid from a YAML file.

    Raises:
        SelectionError: there is none, or it is not a valid grid.
    """
    return check_grid(path).valid()


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


def doubts_about(grid: Grid) -> Iterator[str]:
    """Yield which models are not on this machine, so that they cost rows if the Hub has none."""
    for name in (model.model for model in grid.models):
        if Path(name).exists():
            continue
        if parse_hub_id(name) is not None:
            yield f"{name} is not here, so it is taken for a model on the Hub"
        else:
            yield f"{name}: no such directory or file; its cells would fail"


def _wrong_tasks(grid: Grid) -> Iterator[Problem]:
    for number, task in enumerate(grid.tasks):
        for name in ("dose", "until_certain", "seed"):
            if getattr(task, name) is not None:
                elsewhere = "; seeds: has its seeds" if name == "seed" else ""
                yield Problem(("tasks", number, name), f"is not for a sweep{elsewhere}")
        if _missing(task.data):
            yield Problem(("tasks", number, "data"), f"{task.data}: no such file")


def _missing(data: str | None) -> bool:
    return data is not None and not data.startswith(PREFIX) and not Path(data).exists()


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
