"""Recipes as files: those that ship with surgeon, reading one, and every error with its place."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from surgeon.errors import SelectionError
from surgeon.surgery.recipe import Recipe, RecipeError
from surgeon.surgery.yaml_file import Place, PlacedYaml, Problem, in_order, read_yaml

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Complaint:
    """What is wrong with the value at a path, or with its key."""

    place: Place
    message: str
    key: bool = False


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


def find_recipe(name_or_path: str) -> Path:
    """Return the file of a recipe, which is given by its path or is one that ships with surgeon.

    Raises:
        SelectionError: there is none.
    """
    path = Path(name_or_path)
    if not path.is_file() and name_or_path in shipped_recipes():
        return shipped_recipes()[name_or_path]
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
    if recipe is not None:
        problems += tuple(_unknown_method(recipe, document))
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


def made_of(kind: type[_Value], content: object) -> tuple[_Value | None, tuple[Complaint, ...]]:
    """Make a value of a dataclass from plain values, or tell all that is wrong with them."""
    import pydantic

    try:
        return pydantic.TypeAdapter(kind).validate_python(content), ()
    except pydantic.ValidationError as error:
        return None, tuple(_complaints(error.errors()))
    except RecipeError as error:
        return None, tuple(Complaint(c.place, c.message) for c in error.found)


def _complaints(errors: Sequence[Mapping[str, Any]]) -> Iterator[Complaint]:
    for error in errors:
        if error["type"] == "unexpected_keyword_argument":
            message = f"{_dotted(error['loc'])}: there is no such field"
            yield Complaint(error["loc"], message, key=True)
        else:
            yield Complaint(error["loc"], f"{_dotted(error['loc'])}: {error['msg']}")


def _dotted(place: Place) -> str:
    return ".".join(str(part) for part in place) or "recipe"


def _unknown_method(recipe: Recipe, document: PlacedYaml) -> Iterator[Problem]:
    from surgeon.outliers import DETECTORS

    if recipe.method not in DETECTORS:
        known = ", ".join(sorted(DETECTORS))
        yield document.problem(("method",), f"--method {recipe.method}: there is {known}")


def _with_data_beside(recipe: Recipe | None, path: Path) -> Recipe | None:
    """Make the path of the evaluation's data start from the recipe's file."""
    if recipe is None or recipe.evaluation is None or recipe.evaluation.data is None:
        return recipe
    data = str(path.resolve().parent / recipe.evaluation.data)
    return replace(recipe, evaluation=replace(recipe.evaluation, data=data))
