"""A sweep as a person writes it: a YAML file of models, selections, operations and tasks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from surgeon.errors import SelectionError
from surgeon.study.axes import Fields
from surgeon.study.grid_check import problems_of
from surgeon.surgery.expectation import EvaluationSettings
from surgeon.surgery.fields import Whole
from surgeon.surgery.recipe_file import data_beside, find_recipe, validated
from surgeon.surgery.yaml_file import PlacedYaml, Problem, in_order, read_yaml


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
