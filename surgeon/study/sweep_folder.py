"""The folder of a sweep: rows as they come, safe from being killed, and the grid they are of."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from surgeon.edit import disk
from surgeon.edit.staging import replace_file
from surgeon.errors import OutputError
from surgeon.model.files import parse_json
from surgeon.study.jobs import DONE
from surgeon.study.journal import Journal, Layout, lock

ROWS, TABLE, GRID, MODELS = "rows.jsonl", "rows.parquet", "grid.json", "models"
_LOCK = ".lock"

LAYOUT = Layout(
    "a sweep",
    start=b'{"cell":',
    key=lambda row: str(row["cell"]),
    note=lambda row: row.get("record", {}).get("files"),  # the hashes of what was measured
)


def is_sweep(folder: Path) -> bool:
    """Tell whether a folder holds the rows of a sweep."""
    return (folder / ROWS).is_file()


@contextlib.contextmanager
def open_folder(folder: Path) -> Iterator[Journal]:
    """Open a sweep's folder for one process.

    A folder that was made for a sweep which fails before anything comes of it is removed again.

    Raises:
        OutputError: it is not the folder of a sweep, another process has it open, or a row is
            damaged.
    """
    path, is_new = folder / ROWS, not is_sweep(folder)
    if is_new and _holds_others(folder):
        raise OutputError(
            f"`output` {folder}: exists but is not a sweep directory; choose another path"
        )
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("wb") as locked, path.open("a+b") as file:
        lock(locked, folder)
        try:
            yield Journal(path, file, LAYOUT)
        except BaseException:
            if is_new:
                _remove_empty(folder, made)
            raise


def _holds_others(folder: Path) -> bool:
    """Whether a folder is a file, or has more in it than a sweep that was killed at its start."""
    if not folder.is_dir():
        return folder.exists()
    return any(path.name != _LOCK for path in folder.iterdir())


def _remove_empty(folder: Path, made: Sequence[Path]) -> None:
    """Remove what ``open_folder`` made, unless there is a row or an exported model by now."""
    ours = {ROWS, GRID, _LOCK}
    if (folder / ROWS).stat().st_size or {path.name for path in folder.iterdir()} - ours:
        return
    for name in ours:
        disk.remove(folder / name)
    for parent in made:
        parent.rmdir()


def keep_grid(folder: Path, keys: Sequence[str]) -> None:
    """Keep which cells the grid has: the rows of others are not in the table or a report."""
    replace_file(folder / GRID, json.dumps({"cells": keys}).encode())


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
        raise OutputError(f"{path}: is not a list of cells; run the sweep again") from error


def sort_rows(folder: Path, keys: Sequence[str], journal: Journal) -> int:
    """Put the rows in the order of the grid's cells, and return how many of other grids follow.

    Those are kept if they were measured; what failed for another grid goes.
    """
    cells = set(keys)
    others = [
        key for key, entry in journal.entries.items() if key not in cells and entry.status == DONE
    ]
    replace_file(folder / ROWS, b"".join(journal.lines([*keys, *others])))
    return len(others)
