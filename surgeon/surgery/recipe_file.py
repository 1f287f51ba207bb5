"""Recipes as files: those that ship with surgeon, reading one, and every error with its place."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from surgeon.errors import SelectionError
from surgeon.scoring.data.hub import PREFIX
from surgeon.surgery.fields import made_of
from surgeon.surgery.recipe import Recipe
from surgeon.surgery.yaml_file import PlacedYaml, Problem, in_order, read_yaml

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Checked:
    """A recipe's file: the recipe, or all that is wrong with it, by line and column."""

    path: Path
    recipe: Recipe | None
    problems: tuple[Problem, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``recipes check --json``."""
        return {
            "file": str(self.path),
            "valid": not self.problems,
            "errors": [vars(problem) for problem in self.problems],
        }


def load_recipe(name_or_path: str) -> Recipe:
    """Read a recipe from a YAML file, or by the name of one that ships with surgeon.

    Raises:
        SelectionError: there is none, or it is not a valid recipe.
    """
    checked = check_recipe(find_recipe(name_or_path))
    if checked.recipe is None:
        first, *others = checked.problems
        more = f" (and {len(others)} more: surgeon recipes check)" if others else ""
        raise SelectionError(f"{first.at(checked.path)}{more}")
    return checked.recipe


def find_recipe(name_or_path: str, folder: Path | None = None) -> Path:
    """Return the file of a recipe, which is given by its path or is one that ships with surgeon.

    A path starts from ``folder`` (None: the working directory).

    Raises:
        SelectionError: there is none.
    """
    path = (folder or Path()) / name_or_path
    if not path.is_file() and name_or_path in shipped_recipes():
        return shipped_recipes()[name_or_path]
    if path.is_dir():
        raise SelectionError(f"recipe {name_or_path}: is a directory; name a YAML file in it")
    if not path.is_file():
        near = difflib.get_close_matches(name_or_path, shipped_recipes())
        raise SelectionError(
            f"recipe {name_or_path}: no such file, and none of those that surgeon recipes lists"
            + (f"; near it are {', '.join(near)}" if near else "")
        )
    return path


def shipped_recipes() -> dict[str, Path]:
    """Return the recipes that ship with surgeon, by name."""
    package = Path(__file__).parent.parent
    # A wheel has them inside the package, a source tree at its top.
    folder = next(f for f in (package / "recipes", package.parent / "recipes") if f.is_dir())
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def check_recipe(path: Path) -> Checked:
    """Read a recipe's file and find everything that is wrong with it."""
    document = read_yaml(path)
    recipe, problems = validated(Recipe, document)
    problems = in_order(problems)
    return Checked(path, None if problems else _with_data_beside(recipe, path), problems)


def validated(
    kind: type[_Value], document: PlacedYaml
) -> tuple[_Value | None, tuple[Problem, ...]]:
    """Make a value of a dataclass from a document's content, or tell all that is wrong with it."""
    if document.problems:
        return None, document.problems
    value, complaints = made_of(kind, document.content)
    return value, tuple(document.problem(c.place, c.message, key=c.key) for c in complaints)


def data_beside(data: str | None, folder: Path) -> str | None:
    """Make the path of an evaluation's data start from a folder; data on the Hub have none."""
    return data if data is None or data.startswith(PREFIX) else str(folder / data)


def _with_data_beside(recipe: Recipe | None, path: Path) -> Recipe | None:
    if recipe is None or recipe.evaluation is None:
        return recipe
    data = data_beside(recipe.evaluation.data, path.resolve().parent)
    return replace(recipe, evaluation=replace(recipe.evaluation, data=data))
