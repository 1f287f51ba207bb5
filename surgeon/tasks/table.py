"""Rows of data, and which of their columns hold the texts and the label."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from surgeon.errors import EvaluationError
from surgeon.text import Texts

_SHOWN = 60  # characters of a cell that an error shows
_SIDE_BY_SIDE = re.compile(r"""['"]\s+['"]""")  # ['a' 'b'], as numpy prints it, is 'ab' to Python


@dataclass(frozen=True)
class Table:
    """Rows with named values.

    Attributes:
        name: what a report calls it.
        rows: the values by column.
        raw: the bytes of the file, for its hash.
        first_line: the line of the first row in the file.
        groups: the cells of all lines, in the groups that blank lines make, of a file whose first
            line may be a row as well as a header; () where the format names its columns.
        classes: what integers stand for, in order, by column, where the format says so.
    """

    name: str
    rows: tuple[Mapping[str, Any], ...]
    raw: bytes
    first_line: int = 1
    groups: tuple[list[list[str]], ...] = ()
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def headless(self) -> Table:
        """Return the lines, the first too, as rows whose columns are numbers ("1", "2", …)."""
        table = self._by_number([row for group in self.groups for row in group])
        advice = "read without a header (name the columns if it has one)"
        return replace(table, name=f"{self.name}, {advice}")

    def sentences(self) -> Table:
        """Return the groups of lines, as in CoNLL's files: of each column a list of its words."""
        groups = ([row for row in group if row[0] != "-DOCSTART-"] for group in self.groups)
        width = len(self.groups[0][0])
        return self._by_number(
            [[[r[n] for r in group] for n in range(width)] for group in groups if group]
        )

    def _by_number(self, rows: Sequence[Sequence[Any]]) -> Table:
        numbered = ({str(n): cell for n, cell in enumerate(row, start=1)} for row in rows)
        return Table(self.name, tuple(numbered), self.raw)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns; a row of JSON need not have all."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row))

    @property
    def lines(self) -> tuple[str, ...]:
        """The texts of all rows, whichever their columns."""
        return tuple(v for row in self.rows for v in row.values() if isinstance(v, str))

    def values(self, column: str) -> list[Any]:
        """Return what each row has in a column, None where it has nothing."""
        return [row.get(column) for row in self.rows]

    def texts(self, column: str) -> list[str]:
        """Return the text that each row has in a column.

        Raises:
            EvaluationError: a row has none, or something else.
        """
        values = self.values(column)
        if None in values:
            raise EvaluationError(
                f"`texts` {self.place(values.index(None))}: no {column}; give each row one, or "
                "leave the row out"
            )
        return [as_text(value, self.place(row)) for row, value in enumerate(values)]

    @property
    def sha256(self) -> str:
        """The hash of the file."""
        return hashlib.sha256(self.raw).hexdigest()

    def place(self, row: int) -> str:
        """Return how an error names a row, counted from 0."""
        return f"{self.name}, row {row + self.first_line}"


@dataclass(frozen=True)
class Names:
    """What data sets call the columns of a task, most telling first; () for a column it lacks."""

    text: tuple[str, ...] = ()
    pair: tuple[str, ...] = ()
    label: tuple[str, ...] = ()


_USUAL = Names(
    ("text", "sentence1", "sentence", "premise", "question1", "question", "#1 String"),
    ("text_pair", "text2", "sentence2", "hypothesis", "question2", "#2 String"),
    (
        *("label", "labels", "score", "gold_label", "similarity_score", "similarity"),
        *("Quality", "is_duplicate"),
    ),
)


COLUMN_OPTIONS: Mapping[str, Any] = {"text_column": None, "pair_column": None, "label_column": None}
"""The options of a task on labelled rows, and their defaults."""


@dataclass(frozen=True)
class Columns:
    """The names of the columns that a user gave; None: to be found among the usual names.

    Columns of a file without a header are named by number: "1", "2" and so on. ``usual`` is what
    the data sets of the task call them.
    """

    text: str | None = None
    pair: str | None = None
    label: str | None = None
    usual: Names = field(default_factory=Names)

    @property
    def given(self) -> tuple[str, ...]:
        """The names that a user gave."""
        return tuple(name for name in (self.text, self.pair, self.label) if name is not None)


@dataclass(frozen=True)
class Located:
    """A table, and the columns that it has. ``pair`` and ``label`` are None where there is none.

    ``notes`` says so where the first line is taken for a row and only its shape speaks for that.
    """

    table: Table
    text: str
    pair: str | None
    label: str | None
    notes: tuple[str, ...] = ()

    @property
    def labels(self) -> list[Any]:
        """What each row has in the column of labels."""
        return self.table.values(str(self.label))

    @property
    def texts(self) -> list[str | tuple[str, str]]:
        """The text, or the two texts, of each row.

        Raises:
            EvaluationError: a row has none.
        """
        return [*self.table.texts(self.text)] if self.pair is None else [*self.pairs]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The two texts of each row.

        Raises:
            EvaluationError: a row lacks one.
        """
        texts = (self.table.texts(column) for column in (self.text, str(self.pair)))
        return list(zip(*texts, strict=True))


def locate(
    data: Texts | Table, columns: Columns, *, pair: bool | None = None, label: bool = True
) -> Located:
    """Find the columns of labelled data, by the names that were given or the usual ones.

    A CSV or TSV file has no header where columns are given by number, or where its first line has
    none of the names and as many cells as there are columns to find, or those that the task's data
    have by number.

    Args:
        data: the data.
        columns: the names that were given.
        pair: whether there must be a second text (None: as the task's data have it, or there may
            be).
        label: whether there must be a label.

    Raises:
        EvaluationError: the data are no table, a column is not there or there twice, or there are
            no rows.
    """
    if not isinstance(data, Table):
        raise EvaluationError(f"`texts` {data.name}: labelled rows are needed, and these are texts")
    table, usual = data, columns.usual
    if pair is None and usual.text:
        pair = bool(usual.pair or columns.pair)
    header = data.groups[0][0] if data.groups else []
    numbers = [str(number) for number in range(1, len(header) + 1)]
    if columns.given:
        table = data.headless() if set(columns.given) <= set(numbers) else data
    elif not _known(usual) & {name.casefold() for name in header}:
        cells = len(header) + (not label)
        if cells in {False: (2,), True: (3,), None: (2, 3)}[pair]:
            second, third = numbers[1] if cells == 3 else None, numbers[-1] if label else None
            table = data.headless()
            return Located(table, numbers[0], second, third, notes=(table.name,))
        needed = [names for names in (usual.text, usual.pair, usual.label) if names]
        if needed and all(set(names) & set(numbers) for names in needed):
            table = data.headless()
    if not table.rows:
        what = "a header and no rows" if header else "no rows"
        raise EvaluationError(f"`texts` {table.name}: has {what}; give some")
    text = _find(table, columns.text, (*usual.text, *_USUAL.text), "text", needed=True) or ""
    second = third = None
    if pair is not False:
        others = tuple(name for name in (*usual.pair, *_USUAL.pair) if name != text)
        second = _find(table, columns.pair, others, "pair", needed=pair is True)
    if label:
        third = _find(table, columns.label, (*usual.label, *_USUAL.label), "label", needed=True)
    for name in filter(None, (text, second, third)):
        if table is data and header.count(name) > 1:
            raise EvaluationError(
                f"`texts` {table.name}: {header.count(name)} columns are called {name}; give each "
                "a name of its own"
            )
    return Located(table, text, second, third)


def _known(usual: Names) -> set[str]:
    names = (n for names in (usual, _USUAL) for n in (*names.text, *names.pair, *names.label))
    return {name.casefold() for name in names if not name.isdigit()}


def _find(
    table: Table, given: str | None, usual: tuple[str, ...], role: str, *, needed: bool
) -> str | None:
    there = {name.casefold(): name for name in reversed(table.columns)}
    found = next((there[n.casefold()] for n in usual if n.casefold() in there), None)
    if given is not None:
        found = given if given in table.columns else None
    if found is None and (needed or given is not None):
        by_number = ", by its number if the first line is not a header" if table.groups else ""
        what = f"no column {given}" if given else f"no column for the {role}, such as {usual[0]}"
        raise EvaluationError(
            f"`texts` {table.name}: {what}; it has {', '.join(table.columns)}; name one of them "
            f"with `{role}_column`{by_number}"
        )
    return found


def as_text(value: Any, place: str) -> str:
    """Return a value as text, which a number has too.

    Raises:
        EvaluationError: it is a list, a mapping or bytes.
    """
    if isinstance(value, list | dict | bytes):
        raise EvaluationError(
            f"`texts` {place}: a text is needed, and this is {type(value).__name__}: "
            f"{str(value)[:_SHOWN]}; name the column of texts with `text_column`"
        )
    return str(value)


def parse_cell(cell: Any, place: str) -> Any:
    """Return the list or mapping that a text spells out, as JSON or Python; others as they are.

    Raises:
        EvaluationError: the text begins as one, and is neither.
    """
    if not isinstance(cell, str) or not cell.lstrip().startswith(("[", "{")):
        return cell
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        if _SIDE_BY_SIDE.search(cell) is None:
            with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):
                return ast.literal_eval(cell)
    raise EvaluationError(
        f"`texts` {place}: cannot read the list or mapping in {cell[:_SHOWN]!r}; save the data as "
        "JSON Lines or Parquet"
    )
