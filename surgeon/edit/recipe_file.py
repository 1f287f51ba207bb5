"""Recipes as files: those that ship with surgeon, reading one, and every error with its place.

PyYAML's nodes know the line and column of each value. ruamel.yaml would say them too, but it reads
YAML 1.2, in which yes and no are text, and has no bound for what aliases stand for.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from surgeon.edit.recipe import WAYS, Recipe
from surgeon.errors import SelectionError
from surgeon.settings import Problem, SettingsError, SettingsModel

if TYPE_CHECKING:
    import yaml


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


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Read a recipe from a YAML file, or by the name of one that ships with surgeon.

    Raises:
        SelectionError: there is none, or it is not a valid recipe.
    """
    return check_file(Recipe, find_recipe(str(name_or_path))).valid(": surgeon recipes check")


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


_MOST_CHARACTERS = 300_000
_MOST_VALUES = 100_000  # aliases unfolded: a few lines of them stand for billions
_DEEPEST = 50


@dataclass(frozen=True)
class PlacedProblem:
    """What is wrong at a line and column of a file, both counted from 1."""

    line: int
    column: int
    message: str

    def at(self, path: Path) -> str:
        """Return the problem in one line, in the form that editors jump to."""
        return f"{path}:{self.line}:{self.column}: {' '.join(self.message.split())}"


@dataclass(frozen=True)
class YamlFile:
    """The content of one YAML document, and its problems: what is not YAML, or names a key twice.

    ``node`` knows the place of every value; None, where there is none.
    """

    content: Any
    node: yaml.Node | None
    problems: tuple[PlacedProblem, ...] = ()

    def place(self, problem: Problem) -> PlacedProblem:
        """Give a problem its line and column: of what is not there, where it belongs."""
        message = str(problem).replace("`", "")
        if self.node is None:
            return PlacedProblem(1, 1, message)
        found = value = self.node
        for part in problem.path:
            entries = {name: (key, value) for name, key, value in _entries(value)}
            if str(part) not in entries:
                break
            key, value = entries[str(part)]
            found = key if problem.in_name else value
        return _placed(found, message)


def read_yaml(path: Path) -> YamlFile:
    """Read a file with one YAML document."""
    try:
        return parse_yaml(path.read_text("utf-8"))
    except UnicodeDecodeError as error:
        problem = PlacedProblem(1, 1, f"not UTF-8 text ({error.reason})")
    except ValueError as error:
        mark = getattr(error.__cause__, "problem_mark", None)
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        problem = PlacedProblem(line, column, f"not valid YAML ({error})")
    return YamlFile(None, None, (problem,))


def parse_yaml(text: str, *, plain: bool = False) -> YamlFile:
    """Parse one YAML document of bounded size.

    With ``plain``, all that is no list or mapping is the text that stands there: a date, a number
    and YAML 1.1's no, which is Norwegian too.

    Raises:
        ValueError: it is none, or larger than surgeon reads.
    """
    import yaml

    if len(text) > _MOST_CHARACTERS:
        raise ValueError(f"{len(text):,} characters, and at most {_MOST_CHARACTERS:,} are read")
    try:
        loader = (yaml.BaseLoader if plain else _loader())(text)
        node = loader.get_single_node()
        if node is None:
            return YamlFile(None, None)
        sizes: dict[yaml.Node, int] = {}
        _check_size(node, sizes)
        problems = tuple(problem for inner in sizes for problem in _repeated_keys(inner))
        return YamlFile(loader.construct_document(node), node, problems)
    except Exception as error:  # what Python says of the 40th of May, of !!int x, of deep nesting
        reason = getattr(error, "problem", None) or str(error) or type(error).__name__
        raise ValueError(reason) from error


@cache
def _loader() -> type[yaml.SafeLoader]:
    """Return a loader to which 1e-3, without a point, is a number: to YAML 1.1 alone it is text."""
    import yaml

    class Loader(yaml.SafeLoader):
        """It has its own list of what is a number."""

    exponent = re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", exponent, list("-+0123456789"))
    return Loader


def _check_size(node: yaml.Node, sizes: dict[yaml.Node, int], depth: int = 1) -> int:
    """Return how many values a node stands for, and refuse what is too large or too deep."""
    if depth > _DEEPEST:  # an alias inside what it stands for has no end
        raise ValueError(f"nested more than {_DEEPEST} deep")
    if node not in sizes:
        parts = (part for _, key, value in _entries(node) for part in {key, value})
        sizes[node] = 1 + sum(_check_size(part, sizes, depth + 1) for part in parts)
    if sizes[node] > _MOST_VALUES:
        raise ValueError(f"more than {_MOST_VALUES:,} values, aliases unfolded")
    return sizes[node]


def _repeated_keys(node: yaml.Node) -> Iterator[PlacedProblem]:
    names = set()
    for name, key, _ in _entries(node):
        if name in names:
            yield _placed(key, f"{name}: is here twice")
        names.add(name)


def _entries(node: yaml.Node) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
    """Yield the entries of a mapping or list: name or number, its node, and that of the value."""
    import yaml

    if isinstance(node, yaml.SequenceNode):
        yield from ((str(number), entry, entry) for number, entry in enumerate(node.value))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            # A key that is no scalar has no place among plain values, and no bound as text.
            yield key.value if isinstance(key, yaml.ScalarNode) else "", key, value


def _placed(node: yaml.Node, message: str) -> PlacedProblem:
    return PlacedProblem(node.start_mark.line + 1, node.start_mark.column + 1, message)
