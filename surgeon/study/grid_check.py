"""What a grid cannot mean: entries that contradict each other, or name what is not there."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from surgeon.checkpoint.hub import parse_hub_id
from surgeon.errors import SelectionError
from surgeon.scoring.data.hub import PREFIX
from surgeon.study.axes import Fields, expand_operation, expand_selection, parse_layers
from surgeon.surgery.fields import MOST, found, made_of, no_such_field
from surgeon.surgery.recipe import Recipe
from surgeon.surgery.yaml_file import PlacedYaml, Problem

if TYPE_CHECKING:
    from surgeon.study.grid import Grid

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
