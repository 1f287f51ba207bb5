"""YAML files as plain values, with the line and column of each, so that errors can say where."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import yaml

Place: TypeAlias = tuple[str | int, ...]
"""The path to a value: keys of mappings and numbers of list entries."""


@dataclass(frozen=True)
class Problem:
    """What is wrong at a line and column, both counted from 1."""

    line: int
    column: int
    message: str

    def at(self, path: Path) -> str:
        """Return the problem in one line, in the form that editors jump to."""
        return f"{path}:{self.line}:{self.column}: {' '.join(self.message.split())}"


@dataclass(frozen=True)
class PlacedYaml:
    """A document's content, where its keys and values are, and why it has none."""

    content: Any
    keys: Mapping[Place, tuple[int, int]]
    values: Mapping[Place, tuple[int, int]]
    problems: tuple[Problem, ...] = ()

    def known(self, place: Sequence[str | int]) -> Place:
        """Return the part of a path that leads to something in the file."""
        path = tuple(place)
        return next(path[:end] for end in range(len(path), -1, -1) if path[:end] in self.values)

    def problem(self, place: Sequence[str | int], message: str, *, key: bool = False) -> Problem:
        """Make a problem of a value, or of its key; of what is not there, where it belongs."""
        found = self.known(place)
        line, column = (self.keys if key else self.values).get(found, self.values[found])
        return Problem(line, column, message)


def in_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Sort problems by their place, and tell one of each: a union tells one for each member."""
    first: dict[tuple[int, int], Problem] = {}
    for problem in sorted(problems, key=lambda problem: (problem.line, problem.column)):
        first.setdefault((problem.line, problem.column), problem)
    return tuple(first.values())


def read_yaml(path: Path) -> PlacedYaml:
    """Read a file with one YAML document; what is not YAML is among its problems."""
    import yaml

    top: dict[Place, tuple[int, int]] = {(): (1, 1)}
    try:
        text = path.read_text("utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except UnicodeDecodeError as error:
        return PlacedYaml(None, {}, top, (Problem(1, 1, f"not UTF-8 text ({error.reason})"),))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        return PlacedYaml(None, {}, top, (_syntax_problem(error),))
    places = _Places({}, dict(top), set())
    problems = tuple(_walk(node, (), places)) if node is not None else ()
    return PlacedYaml(content, places.keys, places.values, problems)


@dataclass(frozen=True)
class _Places:
    """What a walk over a document notes; ``walked`` has the nodes that it has been to."""

    keys: dict[Place, tuple[int, int]]
    values: dict[Place, tuple[int, int]]
    walked: set[int]


def _walk(node: yaml.Node, place: Place, places: _Places) -> Iterator[Problem]:
    """Note where everything below a node is; yields what YAML itself lets pass."""
    import yaml

    places.values[place] = _position(node)
    if id(node) in places.walked:  # an alias: a few lines of them unfold to billions
        return
    places.walked.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for number, entry in enumerate(node.value):
            yield from _walk(entry, (*place, number), places)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*place, str(key.value))
            if inner in places.keys:
                yield Problem(*_position(key), f"{key.value}: is here twice")
            places.keys[inner] = _position(key)
            yield from _walk(value, inner, places)


def _position(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _syntax_problem(error: Exception) -> Problem:
    mark = getattr(error, "problem_mark", None)
    reason = getattr(error, "problem", None) or str(error)
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    return Problem(line, column, f"not valid YAML ({reason})")
