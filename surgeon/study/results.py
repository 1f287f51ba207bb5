"""The folder of a sweep: rows as they come, safe from being killed, and a table at the end."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from surgeon.checkpoint.json_object import parse_json
from surgeon.errors import OutputError
from surgeon.study import journal
from surgeon.study.work import DONE, Row
from surgeon.surgery import disk
from surgeon.surgery.staging import replace_file

ROWS = "rows.jsonl"
TABLE = "rows.parquet"
GRID = "grid.json"
MODELS = "models"
_LOCK = ".lock"
_START = b'{"cell":'

_AS_JSON = ("record",)  # columns whose values have no fixed shape


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[tuple[dict[str, Row], BinaryIO]]:
    """Open a sweep's folder for one process: its rows by cell, and the file to add to.

    A folder that was made for a sweep which fails before anything comes of it goes again.

    Raises:
        OutputError: it is no folder of a sweep, another process has it open, or a row is damaged.
    """
    path = folder / ROWS
    if not path.is_file() and _holds_others(folder):
        raise OutputError(f"-o {folder}: is there and no sweep's folder; name another")
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    there = path.is_file()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("wb") as lock, path.open("a+b") as file:
        journal.lock(lock, folder, "another sweep")
        try:
            yield dict(read(path, file)), file
        except BaseException:
            if not there:
                _remove_empty(folder, made)
            raise


def _holds_others(folder: Path) -> bool:
    """Whether a folder is a file, or has more in it than a sweep that was killed at its start."""
    if not folder.is_dir():
        return folder.exists()
    return any(path.name != _LOCK for path in folder.iterdir())


def _remove_empty(folder: Path, made: Sequence[Path]) -> None:
    """Remove what ``opened`` made, unless there is a row or an exported model by now."""
    ours = {ROWS, GRID, _LOCK}
    if (folder / ROWS).stat().st_size or {path.name for path in folder.iterdir()} - ours:
        return
    for name in ours:
        disk.remove(folder / name)
    for parent in made:
        parent.rmdir()


def keep_grid(folder: Path, order: Sequence[str]) -> None:
    """Keep which cells the grid has: the rows of others are not in the table or a report."""
    replace_file(folder / GRID, json.dumps({"cells": list(order)}).encode())


def read_grid(folder: Path) -> frozenset[str] | None:
    """Return the cells of the grid that was swept last; None if that was not kept.

    Raises:
        OutputError: the file is damaged.
    """
    path = folder / GRID
    if not path.is_file():
        return None
    try:
        return frozenset(parse_json(path.read_bytes())["cells"])
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{path}: is no list of cells; run the sweep again") from error


def finish(folder: Path, order: Sequence[str], rows: Mapping[str, Row]) -> tuple[bool, int]:
    """Put the rows in the order of the cells, and make the table.

    What was measured for other grids stays in the rows, after the others, and is not in the
    table; what failed for them goes. Returns whether there is a table, which takes pyarrow, and
    how many rows of other grids there are.
    """
    cells = set(order)
    further = [row for cell, row in rows.items() if cell not in cells and row.get("status") == DONE]
    ordered = [rows[cell] for cell in order if cell in rows]
    replace_file(folder / ROWS, b"".join(map(journal.line, [*ordered, *further])))
    if importlib.util.find_spec("pyarrow") is None or not ordered:
        return False, len(further)
    replace_file(folder / TABLE, _parquet(ordered))
    return True, len(further)


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


def read(path: Path, file: BinaryIO) -> Iterator[tuple[str, Row]]:
    """Yield the cell of each row, and the row, in the order of the file.

    Raises:
        OutputError: a row is damaged.
    """
    for number, (_, row) in enumerate(journal.read(path, file, "a sweep", _START), start=1):
        if "cell" not in row:
            raise journal.damaged(path, number, "a sweep")
        yield str(row["cell"]), row
