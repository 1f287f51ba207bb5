"""Labelled data: rows with named columns, from a file or the Hub."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from surgeon.errors import EvaluationError

_SHOWN = 60  # characters of a cell that an error shows
_SIDE_BY_SIDE = re.compile(r"""['"]\s+['"]""")  # ['a' 'b'], as numpy prints it, is 'ab' to Python


@dataclass(frozen=True)
class Table:
    """Rows of a data set and where they came from.

    Attributes:
        name: what a report calls it.
        rows: the values by column.
        raw: the bytes of the file, for its hash.
        first_line: the line of the first row in the file.
        headless: the same rows by number ("1", "2", …), for a file whose first line may be a row
            as well as a header; None where the format names its columns.
        sentences: the same rows by number, where blank lines make groups of them: a list of words
            and of labels for each group, as in CoNLL's files.
        classes: what integers stand for, in order, by column, where the format says so.
    """

    name: str
    rows: tuple[Mapping[str, Any], ...]
    raw: bytes
    first_line: int = 1
    headless: Table | None = None
    sentences: Table | None = None
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

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
            EvaluationError: a row has none.
        """
        values = self.values(column)
        if None in values:
            raise EvaluationError(
                f"--data {self.place(values.index(None))}: no {column}; give each row one, or "
                "leave the row out"
            )
        return [str(value) for value in values]

    @property
    def sha256(self) -> str:
        """The hash of the file."""
        return hashlib.sha256(self.raw).hexdigest()

    def place(self, row: int) -> str:
        """Return how an error names a row, counted from 0."""
        return f"{self.name}, row {row + self.first_line}"


def spelled_out(cell: Any, place: str) -> Any:
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
        f"--data {place}: cannot read the list or mapping in {cell[:_SHOWN]!r}; save the data as "
        "JSON Lines or Parquet"
    )
