"""YAML files as plain values, with the line and column of each, so that errors can say where.

PyYAML's nodes know their places. ruamel.yaml would say them too, but it reads YAML 1.2, in which
yes and no are text, and has no bound for what aliases stand for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surgeon.settings import Problem

if TYPE_CHECKING:
    import yaml

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
        loader = (yaml.BaseLoader if plain else yaml.SafeLoader)(text)
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
