"""Recipes as files: those that ship with surgeon, reading one, and every error with its place."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from surgeon.edit.recipe import WAYS, Recipe
from surgeon.edit.yaml_file import PlacedProblem, read_yaml
from surgeon.errors import SelectionError
from surgeon.settings import SettingsError, SettingsModel

_Group = TypeVar("_Group", bound=SettingsModel)


@dataclass(frozen=True)
class Checked(Generic[_Group]):
    """A file of settings: its content, or all that is wrong with it, in the order of the file."""

    path: Path
    content: _Group | None
    problems: tuple[PlacedProblem, ...]

    def valid(self, more: str = "") -> _Group:
        """Return the content.

        Raises:
            SelectionError: there are problems. It has the first and their number; ``more`` says
                how to see the others.
        """
        if self.content is None:
            first, *others = self.problems
            rest = f" (and {len(others)} more{more})" if others else ""
            raise SelectionError(f"{first.at(self.path)}{rest}")
        return self.content

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``recipes check --json``."""
        return {
            "file": str(self.path),
            "valid": not self.problems,
            "errors": [vars(problem) for problem in self.problems],
        }


def check_file(group: type[_Group], path: Path) -> Checked[_Group]:
    """Read a YAML file of settings, whose paths start from it, and find all that is wrong."""
    file = read_yaml(path)
    problems = file.problems
    content = None
    if not problems:
        try:
            content = group.read(file.content, path.resolve().parent)
        except SettingsError as error:
            # Once: selections of a grid have an operation in common, and so what is wrong with it.
            problems = tuple(dict.fromkeys(map(file.place, error.problems)))
    return Checked(path, content, tuple(sorted(problems, key=lambda p: (p.line, p.column))))


def load_recipe(name_or_path: str) -> Recipe:
    """Read a recipe from a YAML file, or by the name of one that ships with surgeon.

    Raises:
        SelectionError: there is none, or it is not a valid recipe.
    """
    return check_file(Recipe, find_recipe(name_or_path)).valid(": surgeon recipes check")


def find_recipe(name_or_path: str, folder: Path | None = None) -> Path:
    """Return the file of a recipe, which is given by its path or is one that ships with surgeon.

    A path starts from ``folder`` (None: the working directory).

    Raises:
        SelectionError: there is none.
    """
    path, shipped = (folder or Path()) / name_or_path, shipped_recipes()
    if path.is_file():
        return path
    if name_or_path in shipped:
        return shipped[name_or_path]
    if path.is_dir():
        raise SelectionError(f"recipe {name_or_path}: is a directory; name a YAML file in it")
    near = difflib.get_close_matches(name_or_path, shipped)
    raise SelectionError(
        f"recipe {name_or_path}: no such file, and none of those that surgeon recipes lists"
        + (f"; near it are {', '.join(near)}" if near else "")
    )


def shipped_recipes() -> dict[str, Path]:
    """Return the recipes that ship with surgeon, by name."""
    package = Path(__file__).parent.parent
    # A wheel has them inside the package, a source tree at its top.
    folder = next(f for f in (package / "recipes", package.parent / "recipes") if f.is_dir())
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def recipe_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a recipe's file."""
    schema = Recipe.model_json_schema()
    for group in (schema, *schema["$defs"].values()):
        group.pop("description", None)  # a docstring for programmers
        for field in group["properties"].values():
            field["description"] = " ".join(field["description"].replace("`", "").split())
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "surgeon recipe",
        "oneOf": [_given(way) for way in WAYS],
        "if": {"properties": {"mode": {"const": "scale"}}, "required": ["mode"]},
        "then": _given("factor"),
        "else": {"not": _given("factor")},
    }


def _given(field: str) -> dict[str, Any]:
    # A field that is null is not given: recipes show --json has every field.
    return {"required": [field], "properties": {field: {"not": {"type": "null"}}}}
