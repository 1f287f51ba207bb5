"""A sweep as a person writes it: a YAML file of models, selections, operations and tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from surgeon.errors import SelectionError
from surgeon.surgery.expectation import EvaluationSettings
from surgeon.surgery.recipe import Recipe, parse_numbers
from surgeon.surgery.recipe_file import load_recipe, made_of, validated
from surgeon.surgery.yaml_file import PlacedYaml, Problem, in_order, read_yaml

Fields: TypeAlias = Mapping[str, Any]
"""Some fields of a recipe."""

_ALONE = ("dose", "until_certain")  # what surgeon eval does with one artifact


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
    interval. Paths of models and data start from the grid's file.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    models: tuple[str | Model, ...]
    selections: tuple[Fields, ...]
    operations: tuple[Fields, ...] = ({},)
    layers: tuple[str | int, ...] = ("all",)
    tasks: tuple[EvaluationSettings, ...] = (EvaluationSettings(),)
    seeds: tuple[int, ...] = (0,)
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
        raise SelectionError(f"{path}: no such file; name a YAML file with a grid")
    document = read_yaml(path)
    grid, problems = validated(Grid, document)
    if grid is not None:
        problems = tuple(_contradictions(grid, document))
    problems = in_order(problems)
    return CheckedGrid(path, None if problems else _placed(grid, path.resolve().parent), problems)


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


def _contradictions(grid: Grid, document: PlacedYaml) -> Iterator[Problem]:
    for axis in ("models", "selections", "operations", "layers", "tasks", "seeds"):
        if not getattr(grid, axis):
            yield document.problem((axis,), f"{axis}: needs one entry or more")
    for number, seed in enumerate(grid.seeds):
        if seed < 0:
            yield document.problem(("seeds", number), f"{seed}: give a number of 0 or more")
    for number, layers in enumerate(grid.layers):
        try:
            parse_layers(layers)
        except SelectionError as error:
            yield document.problem(("layers", number), str(error))
    for number, task in enumerate(grid.tasks):
        for field, message in task.contradictions():
            yield document.problem(("tasks", number, field), f"{field}: {message}")
        for field in (*_ALONE, "seed"):
            if getattr(task, field) is not None:
                place = ("tasks", number, field)
                yield document.problem(place, f"{field}: is not for a sweep (seeds: has its seeds)")
    for axis, entries in (("selections", grid.selections), ("operations", grid.operations)):
        for number, entry in enumerate(entries):
            if "seed" in entry:
                place = (axis, number, "seed")
                yield document.problem(place, "seed: is not for a sweep (seeds: has its seeds)")
    for number, selection in enumerate(grid.selections):
        yield from _wrong_recipes(grid, number, selection, document)


def _wrong_recipes(
    grid: Grid, number: int, selection: Fields, document: PlacedYaml
) -> Iterator[Problem]:
    try:
        chosen = next(expand_selection(selection))
    except SelectionError as error:
        yield document.problem(("selections", number), str(error))
        return
    for other, entry in enumerate(grid.operations):
        for operation in expand_operation(entry):
            for complaint in made_of(Recipe, {**chosen, **operation})[1]:
                in_operation = complaint.place[:1] in {(name,) for name in entry}
                axis = ("operations", other) if in_operation else ("selections", number)
                place = (*axis, *complaint.place)
                yield document.problem(place, complaint.message, key=complaint.key)


def _placed(grid: Grid | None, folder: Path) -> Grid | None:
    """Make the paths of a grid start from the folder of its file."""
    if grid is None:
        return None
    return replace(
        grid,
        models=tuple(_placed_model(model, folder) for model in grid.models),
        tasks=tuple(
            replace(task, data=str(folder / task.data)) if task.data else task
            for task in grid.tasks
        ),
    )


def _placed_model(model: str | Model, folder: Path) -> Model:
    entry = Model(model) if isinstance(model, str) else model
    # A Hub id looks like a relative path; it is one where there is something.
    local = folder / entry.model
    return replace(entry, model=str(local)) if local.exists() else entry
