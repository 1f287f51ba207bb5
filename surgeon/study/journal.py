"""A file of JSON lines that outlives a kill: each row on the disk before the next is asked for."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from surgeon.edit import disk
from surgeon.errors import OutputError
from surgeon.model.files import parse_json
from surgeon.study.jobs import Row


def append(file: BinaryIO, row: Row) -> int:
    """Add a row, on the disk when this returns; return where it starts in the file."""
    start = file.seek(0, os.SEEK_END)
    file.write(line(row))
    file.flush()
    disk.sync(file.fileno())
    return start


def line(row: Row) -> bytes:
    """Return a row as it lies in the file."""
    return (json.dumps(row, allow_nan=False, separators=(",", ":")) + "\n").encode()


def read(path: Path, file: BinaryIO, what: str, begin: bytes) -> Iterator[tuple[int, Row]]:
    """Yield where each row starts, and the row; a last line that was cut off is left out.

    It is removed from a file that may be written to, if it begins as rows do: the file may be
    somebody's own. One row is in memory at a time.

    Raises:
        OutputError: a line is no JSON object; ``what`` says whose rows these are.
    """
    start = file.seek(0)
    for number, raw in enumerate(file, start=1):
        if not raw.endswith(b"\n"):
            if not raw.startswith(begin[: len(raw)]):
                raise damaged(path, number, what)
            if file.writable():
                file.truncate(start)
            return
        try:
            row: Any = parse_json(raw)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise damaged(path, number, what)
        yield start, row
        start += len(raw)


def damaged(path: Path, number: int, what: str) -> OutputError:
    """Return the error for a line that is no row."""
    return OutputError(
        f"{path}:{number}: is no row of {what}; remove the line, or name another output"
    )


def lock(file: BinaryIO, output: Path, what: str) -> None:
    """Keep a file to this process for as long as it is open.

    Raises:
        OutputError: another process has it; ``what`` says what that is.
    """
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # a system without such locks
        return
    except BlockingIOError as error:
        raise OutputError(f"-o {output}: {what} is writing there; wait for it") from error
