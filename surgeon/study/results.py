"""The folder of a sweep: rows as they come, safe from being killed, and a table at the end."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from surgeon.errors import OutputError
from surgeon.study import journal
from surgeon.study.work import Row
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
        journal.lock(lock, folder, "another sweep")
        yield _read(path, file), file


def finish(folder: Path, order: Sequence[str], rows: Mapping[str, Row]) -> bool:
    """Put the rows in the order of the cells, and make the table.

    Rows of cells that are in the grid no more stay in the rows, after the others, and are not in
    the table. Returns whether there is a table, which takes pyarrow.
    """
    further = [row for cell, row in rows.items() if cell not in set(order)]
    ordered = [rows[cell] for cell in order if cell in rows]
    replace_file(folder / ROWS, b"".join(map(journal.line, [*ordered, *further])))
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


def _read(path: Path, file: BinaryIO) -> dict[str, Row]:
    rows = {}
    for number, (_, row) in enumerate(journal.read(path, file, "a sweep"), start=1):
        if "cell" not in row:
            raise journal.damaged(path, number, "a sweep")
        rows[str(row["cell"])] = row
    return rows
