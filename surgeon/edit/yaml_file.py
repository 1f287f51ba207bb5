"""YAML files as plain values, with the line and column of each, so that errors can say where."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import yaml


_MOST_CHARACTERS = 300_000
_MOST_VALUES = 100_000  # aliases unfolded: a few lines of them stand for billions
_DEEPEST = 50

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
    top: dict[Place, tuple[int, int]] = {(): (1, 1)}
    try:
        content, node = parse_yaml(path.read_text("utf-8"))
    except UnicodeDecodeError as error:
        return PlacedYaml(None, {}, top, (Problem(1, 1, f"not UTF-8 text ({error.reason})"),))
    except ValueError as error:
        return PlacedYaml(None, {}, top, (_syntax_problem(error),))
    places = _Places({}, dict(top), set())
    problems = tuple(_walk(node, (), places)) if node is not None else ()
    return PlacedYaml(content, places.keys, places.values, problems)


def parse_yaml(text: str, *, plain: bool = False) -> tuple[Any, yaml.Node | None]:
    """Return the content of one YAML document of bounded size, and the node that it was made of.

    With ``plain``, all that is no list or mapping is the text that stands there: a date, a number
    and YAML 1.1's no, which is Norwegian too.

    Raises:
        ValueError: it is none, or larger than surgeon reads.
    """
    import yaml

    if len(text) > _MOST_CHARACTERS:
        raise ValueError(f"{len(text):,} characters, and at most {_MOST_CHARACTERS:,} are read")
    try:
        loader = (yaml.BaseLoader if plain else yaml.SafeLoader)(text)
        node = loader.get_single_node()
        _check_size(node)
        return None if node is None else loader.construct_document(node), node
    except Exception as error:  # what Python says of the 40th of May, of !!int x, of deep nesting
        reason = getattr(error, "problem", None) or str(error) or type(error).__name__
        raise ValueError(reason) from error


def _check_size(top: yaml.Node | None) -> None:
    """Refuse a document that is too deep or too large, with what its aliases stand for."""
    import yaml

    sizes: dict[int, int] = {}

    def size(node: yaml.Node, depth: int) -> int:
        if depth > _DEEPEST:  # an alias inside what it stands for has no end
            raise ValueError(f"nested more than {_DEEPEST} deep")
        if id(node) not in sizes:
            inner: list[yaml.Node] = []
            if isinstance(node, yaml.SequenceNode):
                inner = node.value
            elif isinstance(node, yaml.MappingNode):
                inner = [part for pair in node.value for part in pair]
            sizes[id(node)] = 1 + sum(size(part, depth + 1) for part in inner)
        if sizes[id(node)] > _MOST_VALUES:
            raise ValueError(f"more than {_MOST_VALUES:,} values, aliases unfolded")
        return sizes[id(node)]

    if top is not None:
        size(top, 1)


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


def _syntax_problem(error: ValueError) -> Problem:
    mark = getattr(error.__cause__, "problem_mark", None)
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    return Problem(line, column, f"not valid YAML ({error})")
