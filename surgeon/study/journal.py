"""The rows of a study as JSON lines that outlive a kill: each is on the disk before the next."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from surgeon.edit import disk
from surgeon.errors import OutputError
from surgeon.model.files import parse_json
from surgeon.study.jobs import DONE, FAILED, Row


@dataclass(frozen=True)
class Layout:
    """What the journal of one kind of study looks like.

    ``study`` is what errors call it. Every line starts with ``start``. ``key`` returns the key of
    a row's job, and ``note`` what else of the row is kept in memory. ``header`` is the first line
    where the first is not a row.
    """

    study: str
    start: bytes
    key: Callable[[Row], str]
    note: Callable[[Row], Any]
    header: Row | None = None


@dataclass(frozen=True)
class Entry:
    """What is kept in memory of a row, which itself stays in the file, at byte ``start``."""

    start: int
    status: str
    error: str | None
    seconds: float
    note: Any


class Journal:
    """The rows of a study in an open file, each job's last one in ``entries`` by the job's key.

    ``header`` is that of the file, which gets one if it is empty and may be written to.

    Raises:
        OutputError: a line is not a row.
    """

    def __init__(self, path: Path, file: BinaryIO, layout: Layout) -> None:
        self._file, self._layout = file, layout
        self.header = layout.header
        self.entries: dict[str, Entry] = {}
        for number, (start, row) in enumerate(read_lines(path, file, layout), start=1):
            if number == 1 and layout.header is not None:
                self.header = row
                continue
            try:
                self._remember(start, row)
            except (KeyError, TypeError, AttributeError) as error:
                raise not_a_row(path, number, layout) from error
        if layout.header is not None and file.writable() and file.seek(0, os.SEEK_END) == 0:
            self._write(layout.header)

    def append(self, row: Row) -> None:
        """Add a row, on the disk when this returns."""
        self._remember(self._write(row), row)

    def lines(self, keys: Iterable[str]) -> Iterator[bytes]:
        """Yield the rows of some keys as they are in the file."""
        for key in keys:
            self._file.seek(self.entries[key].start)
            yield self._file.readline()

    def rows(self, keys: Iterable[str]) -> Iterator[Row]:
        """Yield the rows of some keys; one is in memory at a time."""
        return map(json.loads, self.lines(keys))

    def _remember(self, start: int, row: Row) -> None:
        if row["status"] not in (DONE, FAILED):
            raise KeyError(row["status"])
        self.entries[self._layout.key(row)] = Entry(
            start, row["status"], row.get("error"), row.get("seconds", 0.0), self._layout.note(row)
        )

    def _write(self, row: Row) -> int:
        start = self._file.seek(0, os.SEEK_END)
        line = json.dumps(row, allow_nan=False, separators=(",", ":"))
        self._file.write(f"{line}\n".encode())
        self._file.flush()
        disk.sync(self._file.fileno())
        return start


def read_lines(path: Path, file: BinaryIO, layout: Layout) -> Iterator[tuple[int, Row]]:
    """Yield where each line of a journal starts, and what it says.

    A last line that was cut off is left out. It is removed from a file that may be written to, if
    it begins as rows do: the file may be somebody's own.

    Raises:
        OutputError: a line is not a JSON object.
    """
    start = file.seek(0)
    for number, raw in enumerate(file, start=1):
        if not raw.endswith(b"\n"):
            if not raw.startswith(layout.start[: len(raw)]):
                raise not_a_row(path, number, layout)
            if file.writable():
                file.truncate(start)
            return
        try:
            row: Any = parse_json(raw)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise not_a_row(path, number, layout)
        yield start, row
        start += len(raw)


def not_a_row(path: Path, number: int, layout: Layout) -> OutputError:
    """Return the error for a line that is not a row."""
    return OutputError(
        f"{path}:{number}: is not a row of {layout.study}; remove the line, or choose another path"
    )


def lock(file: BinaryIO, output: Path) -> None:
    """Keep a file to this process for as long as it is open.

    Raises:
        OutputError: another process has it.
    """
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # a system without such locks
        return
    except BlockingIOError as error:
        raise OutputError(
            f"`output` {output}: another run is writing there; wait for it"
        ) from error
