"""A sweep as a person writes it: a YAML file of models, selections, operations and tasks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from surgeon.edit.expectation import EvaluationSettings
from surgeon.edit.fields import (
    MOST,
    Whole,
    found,
    made_of,
    no_such_field,
)
from surgeon.edit.recipe import Recipe, parse_numbers
from surgeon.edit.recipe_file import (
    data_beside,
    find_recipe,
    load_recipe,
    validated,
)
from surgeon.edit.yaml_file import (
    PlacedYaml,
    Problem,
    in_order,
    read_yaml,
)
from surgeon.errors import SelectionError
from surgeon.model.hub import parse_hub_id
from surgeon.tasks.data import PREFIX


@dataclass(frozen=True)
class Model:
    """A model of a sweep: a directory, a weight file or a Hub id, as ``open_checkpoint`` takes."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (pydantic reads it off the class)

    model: str
    revision: str | None = None
    sites_pattern: str | None = None


@dataclass(frozen=True)
class Grid:
    """Every model × selection × operation × layers × task × seed is a cell of the sweep.

    ``selections`` and ``operations`` hold fields of recipes. A selection may say ``each`` (such as
    0-383: as many selections of one dimension) or ``recipe`` (the name or file of one, whose
    fields it takes over); an operation may list several numbers as its ``factor``. ``layers`` are
    lists such as 0-5,11, or all. A seed is that of random dimensions, masks, controls and the
    interval. Paths of models, recipes and data start from the grid's file. What one axis says, no
    other may say too.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    models: tuple[str | Model, ...]
    selections: tuple[Fields, ...]
    operations: tuple[Fields, ...] = ({},)
    layers: tuple[str | Whole, ...] = ("all",)
    tasks: tuple[EvaluationSettings, ...] = (EvaluationSettings(),)
    seeds: tuple[Whole, ...] = (0,)
    description: str = ""


@dataclass(frozen=True)
class CheckedGrid:
    """A grid's file: the grid, or all that is wrong with it, by line and column."""

    path: Path
    grid: Grid | None
    problems: tuple[Problem, ...]


def load_grid(path: Path) -> Grid:
    """Read a grid from a YAML file.

    Raises:
        SelectionError: there is none, or it is not a valid grid.
    """
    checked = check_grid(path)
    if checked.grid is None:
        first, *others = checked.problems
        more = f" (and {len(others)} more)" if others else ""
        raise SelectionError(f"{first.at(path)}{more}")
    return checked.grid


def check_grid(path: Path) -> CheckedGrid:
    """Read a grid's file and find everything that is wrong with it.

    Raises:
        SelectionError: there is no such file.
    """
    if not path.is_file():
        found = "is a directory" if path.is_dir() else "no such file"
        raise SelectionError(f"{path}: {found}; name a YAML file with a grid")
    document = read_yaml(path)
    grid, problems = validated(Grid, document)
    if grid is not None:
        grid, wrong = _placed(grid, path.resolve().parent, document)
        problems = (*wrong, *problems_of(grid, document))
    problems = in_order(problems)
    return CheckedGrid(path, None if problems else grid, problems)


def _placed(grid: Grid, folder: Path, document: PlacedYaml) -> tuple[Grid, tuple[Problem, ...]]:
    """Make the paths of a grid start from the folder of its file; tell recipes that are not."""
    selections: list[Fields] = []
    problems = []
    for number, fields in enumerate(grid.selections):
        selection = dict(fields)
        try:
            if "recipe" in fields:
                selection["recipe"] = str(find_recipe(str(fields["recipe"]), folder))
        except SelectionError as error:
            problems.append(document.problem(("selections", number, "recipe"), str(error)))
        selections.append(selection)
    placed = replace(
        grid,
        models=tuple(_placed_model(model, folder) for model in grid.models),
        selections=tuple(selections),
        tasks=tuple(replace(task, data=data_beside(task.data, folder)) for task in grid.tasks),
    )
    return placed, tuple(problems)


def _placed_model(model: str | Model, folder: Path) -> Model:
    entry = Model(model) if isinstance(model, str) else model
    # A Hub id looks like a relative path; it is one where there is something.
    local = folder / entry.model
    return replace(entry, model=str(local)) if local.exists() else entry


Fields: TypeAlias = Mapping[str, Any]
"""Some fields of a recipe."""


def expand_selection(fields: Fields) -> Iterator[dict[str, Any]]:
    """Yield the fields of each selection that one entry of ``selections`` stands for.

    Raises:
        SelectionError: ``each`` is no list of numbers, or ``recipe`` names no valid one.
    """
    rest = {name: value for name, value in fields.items() if name not in ("each", "recipe")}
    if "recipe" in fields:
        recipe = load_recipe(str(fields["recipe"])).to_json()
        rest = {**{name: value for name, value in recipe.items() if value is not None}, **rest}
    if "each" not in fields:
        yield rest
        return
    for dim in parse_numbers("each", str(fields["each"])):
        yield {**rest, "dims": (dim,)}


def expand_operation(fields: Fields) -> Iterator[dict[str, Any]]:
    """Yield the fields of each operation that one entry of ``operations`` stands for."""
    factors = fields.get("factor")
    if not isinstance(factors, Sequence) or isinstance(factors, str):
        yield dict(fields)
        return
    for factor in factors:
        yield {**fields, "factor": factor}


def parse_layers(layers: str | int) -> dict[str, Any]:
    """Return the recipe's field for an entry of ``layers``.

    Raises:
        SelectionError: it is neither all nor a list of numbers.
    """
    return {} if layers == "all" else {"layers": parse_numbers("layers", str(layers))}


_ALONE = ("dose", "until_certain")  # what surgeon eval does with one artifact
_WAYS = ("dims", "remove_outliers", "random", "each", "recipe")
_CHOICE = (*_WAYS, "seed", "method", "sigma", "min_layers", "min_damage", "relax")
_ELSEWHERE = {"seed": "seeds", "evaluation": "tasks"}
_OF_SELECTIONS = ("each", "recipe", *(field.name for field in dataclasses.fields(Recipe)))


def problems_of(grid: Grid, document: PlacedYaml) -> Iterator[Problem]:
    """Yield all that is wrong with a grid whose paths start from its folder."""
    for axis in ("models", "selections", "operations", "layers", "tasks", "seeds"):
        if not getattr(grid, axis):
            yield document.problem((axis,), f"{axis}: needs one entry or more")
    for number, seed in enumerate(grid.seeds):
        if not 0 <= seed <= MOST:
            told = f"{found(seed)}: give a number of 0 or more, to {MOST} at most"
            yield document.problem(("seeds", number), told)
    for number, layers in enumerate(grid.layers):
        try:
            parse_layers(layers)
        except SelectionError as error:
            yield document.problem(("layers", number), str(error))
    yield from _wrong_tasks(grid, document)
    for number, operation in enumerate(grid.operations):
        yield from _misplaced(("operations", number), operation, document)
    for number, selection in enumerate(grid.selections):
        wrong = [*_misplaced(("selections", number), selection, document)]
        wrong += _said_twice(grid, number, selection, document)
        yield from wrong or _wrong_recipes(grid, number, selection, document)


def doubts_about(grid: Grid) -> Iterator[str]:
    """Yield which models are not on this machine, so that they cost rows if the Hub has none."""
    for model in grid.models:
        name = model if isinstance(model, str) else model.model
        if Path(name).exists():
            continue
        if parse_hub_id(name) is not None:
            yield f"{name} is not here, so it is taken for a model on the Hub"
        else:
            yield f"{name}: no such directory or file; its cells would fail"


def _wrong_tasks(grid: Grid, document: PlacedYaml) -> Iterator[Problem]:
    for number, task in enumerate(grid.tasks):
        place = ("tasks", number)
        for field, message in task.contradictions():
            yield document.problem((*place, field), f"{field}: {message}")
        for field in (*_ALONE, "seed"):
            if getattr(task, field) is not None:
                said = " (seeds: has its seeds)" if field == "seed" else ""
                yield document.problem((*place, field), f"{field}: is not for a sweep{said}")
        if _missing(task.data):
            yield document.problem((*place, "data"), f"data: {task.data}: no such file")


def _missing(data: str | None) -> bool:
    return data is not None and not data.startswith(PREFIX) and not Path(data).exists()


def _misplaced(place: tuple[str, int], fields: Fields, document: PlacedYaml) -> Iterator[Problem]:
    """Yield the fields of an entry that belong to another axis, or contradict each other."""
    axis, _ = place
    known = [name for name in _OF_SELECTIONS if axis == "selections" or name not in _CHOICE]
    ways = [name for name in fields if name in _WAYS]
    for name, value in fields.items():
        inner = (*place, str(name))
        if name in _ELSEWHERE:
            told = f"{name}: is not for one of the {axis}; {_ELSEWHERE[name]}: has it"
        elif axis == "operations" and name in _CHOICE:
            told = f"{name}: chooses dimensions, which selections: does"
        elif axis == "selections" and name in ways and name != ways[0]:
            told = f"{name}: chooses dimensions, which {ways[0]}: does too; keep one"
        elif axis == "operations" and name == "factor" and value in ([], ()):
            told = "factor: needs one number or more; found []"
        elif name not in known:
            yield document.problem(inner, no_such_field(name, (str(name),), known), key=True)
            continue
        else:
            continue
        yield document.problem(inner, told, key=True)


def _said_twice(
    grid: Grid, number: int, selection: Fields, document: PlacedYaml
) -> Iterator[Problem]:
    """Yield what an entry says that another axis would silently replace."""
    limited = any(layers != "all" for layers in grid.layers)
    entries = [(("selections", number), selection)]
    entries += [(("operations", other), entry) for other, entry in enumerate(grid.operations)]
    for place, entry in entries:
        if limited and entry.get("layers") is not None:
            told = "layers: layers: of the grid has them too; say it in one of the two"
            yield document.problem((*place, "layers"), told, key=True)
    for place, entry in entries[1:]:
        for name in entry.keys() & selection.keys():
            told = f"{name}: selections.{number} has it too; say it in one of the two"
            yield document.problem((*place, str(name)), told, key=True)


def _wrong_recipes(
    grid: Grid, number: int, selection: Fields, document: PlacedYaml
) -> Iterator[Problem]:
    try:
        chosen = next(expand_selection(selection))
    except SelectionError as error:
        name = "each" if str(error).startswith("each") else "recipe"
        yield document.problem(("selections", number, name), str(error))
        return
    data = (chosen.get("evaluation") or {}).get("data")
    if any(task.data is None for task in grid.tasks) and _missing(data):
        told = f"recipe: its evaluation's data, {data}: no such file"
        yield document.problem(("selections", number, "recipe"), told)
    for other, entry in enumerate(grid.operations):
        for operation in expand_operation(entry):
            for complaint in made_of(Recipe, {**chosen, **operation})[1]:
                in_operation = complaint.place[:1] in {(name,) for name in entry}
                axis = ("operations", other) if in_operation else ("selections", number)
                place = (*axis, *complaint.place)
                yield document.problem(place, complaint.message, key=complaint.key)


_Key = TypeVar("_Key", bound=Hashable)


def short_names(
    items: Iterable[_Key], name: Callable[[_Key, int], str], start: int = 1
) -> dict[_Key, str]:
    """Name each item, no two alike.

    Args:
        items: what to name.
        name: an item's name of some length, such as a path's last parts. A length that says
            no more than the one before has come to its end.
        start: the length of a name that needs no more.
    """
    found = {item: name(item, start) for item in items}
    length = start
    while alike := _alike(found):
        length += 1
        longer = {item: name(item, length) for item in alike}
        if all(longer[item] == found[item] for item in alike):
            break
        found |= longer
    for number, item in enumerate(_alike(found), start=1):
        found[item] += f" ({number})"
    return found


def _alike(names: dict[_Key, str]) -> list[_Key]:
    counts: dict[str, int] = {}
    for name in names.values():
        counts[name] = counts.get(name, 0) + 1
    return [item for item, name in names.items() if counts[name] > 1]


def path_name(path: str, parts: int) -> str:
    """Return the last parts of a path; what is none, such as a Hub id, is left whole."""
    if not Path(path).is_absolute():
        return path
    return "/".join(Path(path).parts[-parts:]).replace("//", "/")


def model_name(model: Model, parts: int) -> str:
    """Return a model's name with the last parts of its path."""
    revision = f"@{model.revision}" if model.revision else ""
    pattern = f" with {model.sites_pattern}" if model.sites_pattern else ""
    return f"{path_name(model.model, parts)}{revision}{pattern}"
