"""The folder of a sweep: rows as they come, safe from being killed, and a table at the end."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from surgeon.errors import OutputError
from surgeon.study.worker import Row
from surgeon.surgery.staging import replace_file

ROWS = "rows.jsonl"
TABLE = "rows.parquet"
MODELS = "models"
_LOCK = ".lock"

_AS_JSON = ("record",)  # columns whose values have no fixed shape


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[tuple[dict[str, Row], BinaryIO]]:
    """Open a sweep's folder for one process: its rows by cell, and the file to add to.

    Raises:
        OutputError: it is no folder of a sweep, another process has it open, or a row is damaged.
    """
    path = folder / ROWS
    if folder.exists() and not path.is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"-o {folder}: is there and no sweep's folder; name another")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("wb") as lock, path.open("a+b") as file:
        _lock(lock, folder)
        yield _read(path, file), file


def append(file: BinaryIO, row: Row) -> None:
    """Add a row, on the disk when this returns."""
    file.write(_line(row))
    file.flush()
    os.fsync(file.fileno())


def finish(folder: Path, order: Sequence[str], rows: Mapping[str, Row]) -> bool:
    """Put the rows in the order of the cells, and make the table.

    Rows of cells that are in the grid no more stay in the rows, after the others, and are not in
    the table. Returns whether there is a table, which takes pyarrow.
    """
    further = [row for cell, row in rows.items() if cell not in set(order)]
    ordered = [rows[cell] for cell in order if cell in rows]
    replace_file(folder / ROWS, b"".join(map(_line, [*ordered, *further])))
    if importlib.util.find_spec("pyarrow") is None or not ordered:
        return False
    replace_file(folder / TABLE, _parquet(ordered))
    return True


def _parquet(rows: Sequence[Row]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = max(rows, key=len).keys()  # a failed row has but some of them
    plain = [{name: _plain(name, row.get(name)) for name in names} for row in rows]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(plain), buffer)
    return buffer.getvalue()


def _plain(name: str, value: object) -> object:
    return json.dumps(value) if name in _AS_JSON and value is not None else value


def _line(row: Row) -> bytes:
    return (json.dumps(row, allow_nan=False) + "\n").encode()


def _read(path: Path, file: BinaryIO) -> dict[str, Row]:
    """Read the rows; a last line that was cut off is removed."""
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    file.truncate(len(whole))
    rows = {}
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            row = json.loads(line)
            rows[str(row["cell"])] = row
        except (ValueError, KeyError, TypeError) as error:
            raise OutputError(
                f"{path}:{number}: is no row of a sweep; remove the line, or name another output"
            ) from error
    return rows


def _lock(file: BinaryIO, folder: Path) -> None:
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # a system without such locks
        return
    except BlockingIOError as error:
        raise OutputError(f"-o {folder}: another sweep is writing there; wait for it") from error
