"""Recipes as files: those that ship with surgeon, reading one, and every error with its place."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from surgeon.edit.expectation import GRADES, EvaluationSettings
from surgeon.edit.fields import LARGEST, MOST, made_of
from surgeon.edit.recipe import Recipe
from surgeon.edit.yaml_file import (
    PlacedYaml,
    Problem,
    in_order,
    read_yaml,
)
from surgeon.errors import SelectionError
from surgeon.ranking import DETECTORS
from surgeon.tasks.data import PREFIX
from surgeon.tasks.registry import TASKS

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


_GRADES = "; ".join(f"{grade}: {meaning}" for grade, meaning in GRADES.items())

_ABOUT: dict[str, dict[str, str]] = {
    "Recipe": {
        "dims": "Edit these dimensions, counted from 0.",
        "remove_outliers": "Edit the N strongest outliers by the method.",
        "random": "Edit N dimensions drawn with the seed.",
        "seed": "For random.",
        "method": "What ranks the outliers.",
        "sigma": "Standard deviations beyond which a gain or bias is flagged.",
        "min_layers": "Layers that must flag an outlier: a count, or a share of all below 1.",
        "min_damage": "The least damage that makes an outlier, for a method that measures it.",
        "relax": "Take the N strongest, outliers or not.",
        "mode": "Set to zero, scale by the factor, or set to the mean of the vector.",
        "factor": "For mode scale.",
        "params": "Which of gain and bias to edit.",
        "layers": "Only these layers, counted from 0.",
        "sites": "Which norms: output (the last operation of a layer), attention, …; all.",
        "description": "What the operation is, for people.",
        "model": "The checkpoint that the dimensions were found on.",
        "evaluation": "How surgeon eval is to measure the operation.",
        "expect": "What that should show.",
    },
    "EvaluationSettings": {f.name: f.metadata["about"] for f in fields(EvaluationSettings)},
    "Expectation": {
        "verdict": "The verdict that surgeon eval should reach.",
        "published": "Figures that others have reported.",
    },
    "Published": {
        "what": "What was measured, and in which unit.",
        "grade": f"How well the figure is known. {_GRADES}.",
        "source": "Who reported it, and where.",
        "before": "Of the full model.",
        "after": "Of the edited model.",
        "within": "How far before and after may be off.",
        "dims": "The dimensions it is about, where they are not all of the recipe's.",
    },
}

_ONCE = {"minItems": 1, "uniqueItems": True}
_INDEXES = {**_ONCE, "items": {"type": "integer", "minimum": 0, "maximum": LARGEST}}
_COUNT = {"minimum": 1, "maximum": LARGEST}

_LIMITS: dict[str, dict[str, dict[str, Any]]] = {  # what the types of the fields do not say
    "Recipe": {
        "dims": _INDEXES,
        "remove_outliers": _COUNT,
        "random": _COUNT,
        "seed": {"minimum": 0, "maximum": MOST},
        "method": {"enum": sorted(DETECTORS)},
        "sigma": {"exclusiveMinimum": 0},
        "min_layers": {
            "anyOf": [
                {"exclusiveMinimum": 0, "exclusiveMaximum": 1},
                {"type": "integer", "minimum": 1},
            ]
        },
        "min_damage": {"minimum": 0},
        "params": _ONCE,
        "layers": _INDEXES,
        "sites": _ONCE,
    },
    "EvaluationSettings": {
        **{f.name: f.metadata["limits"] for f in fields(EvaluationSettings)},
        "task": {"enum": list(TASKS)},
    },
    "Published": {"what": {"pattern": r"\S"}, "source": {"pattern": r"\S"}, "dims": _INDEXES},
    "Expectation": {},
}


def recipe_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a recipe's file."""
    import pydantic

    schema = pydantic.TypeAdapter(Recipe).json_schema()
    for name, part in (("Recipe", schema), *schema["$defs"].items()):
        part.pop("description", None)  # a docstring for programmers
        for field, about in part["properties"].items():
            _limit(about, _LIMITS[name].get(field, {}))
            about["description"] = _ABOUT[name][field]
    ways = ("dims", "remove_outliers", "random")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "surgeon recipe",
        "oneOf": [_given(way) for way in ways],
        "if": {"properties": {"mode": {"const": "scale"}}, "required": ["mode"]},
        "then": _given("factor"),
        "else": {"not": _given("factor")},
    }


def _limit(field: dict[str, Any], limits: dict[str, Any]) -> None:
    """Add limits to a field's schema, or to that of its value where it may be null."""
    values = [part for part in field.get("anyOf", [field]) if part.get("type") != "null"]
    values[0].update(limits)


def _given(field: str) -> dict[str, Any]:
    # A field that is null is not given: recipes show --json has every field.
    return {"required": [field], "properties": {field: {"not": {"type": "null"}}}}
