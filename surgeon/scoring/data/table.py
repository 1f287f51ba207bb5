"""Labelled data: rows with named columns, from a file or the Hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


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
        classes: what integers stand for, in order, by column, where the format says so.
    """

    name: str
    rows: tuple[Mapping[str, Any], ...]
    raw: bytes
    first_line: int = 1
    headless: Table | None = None
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(self.rows[0]) if self.rows else ()

    def place(self, row: int) -> str:
        """Return how an error names a row, counted from 0."""
        return f"{self.name}, row {row + self.first_line}"
