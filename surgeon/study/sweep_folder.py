"""The folder of a sweep: its rows, which outlive a kill, the grid they are of, what they say."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surgeon.edit import disk
from surgeon.edit.changes import Mode
from surgeon.edit.staging import replace_file
from surgeon.errors import OutputError
from surgeon.model.files import parse_json
from surgeon.ranking.ranking import SIGMA
from surgeon.settings import reader
from surgeon.study.engines import DONE, Row
from surgeon.study.grid import Model
from surgeon.study.run import Journal, Layout, lock_output, read_lines

ROWS, TABLE, GRID, MODELS = "rows.jsonl", "rows.parquet", "grid.json", "models"
_LOCK = ".lock"
_SHOWN = 120  # characters of what is wrong with a row
_SETTINGS = ("sigma", "min_layers", "min_damage", "relax")

LAYOUT = Layout(
    "a sweep",
    start=b'{"cell":',
    key=lambda row: str(row["cell"]),
    note=lambda row: row.get("record", {}).get("files"),  # the hashes of what was measured
)


def is_sweep(folder: Path) -> bool:
    """Tell whether a folder holds the rows of a sweep."""
    return (folder / ROWS).is_file()


def check_folder(folder: Path) -> None:
    """Refuse a folder that has more in it than a sweep leaves that is killed at its start.

    Raises:
        OutputError: it has, and is not a sweep's, or is no folder.
    """
    if folder.is_dir():
        others = any(path.name != _LOCK for path in folder.iterdir())
    else:
        others = folder.exists()
    if others and not is_sweep(folder):
        raise OutputError(
            f"`output` {folder}: exists but is not a sweep directory; choose another path"
        )


@contextlib.contextmanager
def open_folder(folder: Path) -> Iterator[Journal]:
    """Open a sweep's folder for one process.

    A folder that was made for a sweep which fails before anything comes of it is removed again.

    Raises:
        OutputError: it is not the folder of a sweep, another process has it open, or a row is
            damaged.
    """
    check_folder(folder)
    path, is_new = folder / ROWS, not is_sweep(folder)
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("wb") as locked, path.open("a+b") as file:
        lock_output(locked, folder)
        try:
            yield Journal(path, file, LAYOUT)
        except BaseException:
            if is_new:
                _remove_empty(folder, made)
            raise


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


@dataclass(frozen=True)
class Measurement:
    """A cell that was measured.

    Attributes:
        model: as the grid names it.
        selection: how the dims were chosen: "dims", "random" or a method's name, with those of
            its settings that are not its own rule.
        mode: what was done to them, by ``factor`` if it is "scale".
        target: what of them was edited, in words, the layers left out.
        layers: those that were edited; None for all.
        dims: what was edited, in the order of the selection.
        task: what was measured, on ``data`` (None: the built-in sample).
        mask_rate: the share of tokens that were hidden, if the grid says one.
        controls: how many random removals it was compared with, if the grid says so.
        baseline: the metric of the model as it is.
        delta: patched − baseline, with its 95% interval ``ci95``.
        control_range: that of the changes that random removals make.
        verdict: on the change.
        warnings: what to keep in mind about it, a sentence each.
    """

    model: Model
    selection: str
    mode: Mode
    target: str
    factor: float | None
    layers: tuple[int, ...] | None
    dims: tuple[int, ...]
    task: str
    metric: str
    data: str | None
    mask_rate: float | None
    controls: int | None
    seed: int | None
    examples: int
    baseline: float
    delta: float
    ci95: tuple[float, float]
    control_range: tuple[float, float]
    verdict: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failure:
    """A cell that gave no result, and why."""

    model: Model
    error: str


@dataclass(frozen=True)
class Rows:
    """The rows of a sweep's last grid, each cell's last; ``others`` are of other grids."""

    measured: tuple[Measurement, ...]
    failed: tuple[Failure, ...]
    others: int


def read_rows(folder: Path) -> Rows:
    """Read the rows of a sweep, one that still runs included.

    Raises:
        OutputError: the folder is not a sweep's, or a row is damaged.
    """
    if not is_sweep(folder):
        raise OutputError(f"{folder}: has no {ROWS}, so it is not a sweep directory")
    from pydantic import ValidationError

    path, cells = folder / ROWS, read_grid(folder)
    measured, failed = reader(Measurement), reader(Failure)
    found: dict[str, Measurement | Failure] = {}
    others = set()
    with path.open("rb") as file:
        for number, (_, row) in enumerate(read_lines(path, file, LAYOUT), start=1):
            try:
                if cells is not None and row["cell"] not in cells:
                    others.add(row["cell"])
                elif row["status"] == DONE:
                    found[row["cell"]] = measured.validate_python(_measured(row))
                else:
                    found[row["cell"]] = failed.validate_python({**row, "model": _model(row)})
            except (KeyError, TypeError, AttributeError, ValidationError) as error:
                reason = " ".join(str(error).split())[:_SHOWN]
                raise OutputError(
                    f"{path}:{number}: is not a row of a sweep ({reason}); run the sweep again"
                ) from error
    return Rows(
        tuple(row for row in found.values() if isinstance(row, Measurement)),
        tuple(row for row in found.values() if isinstance(row, Failure)),
        len(others),
    )


def _measured(row: Row) -> Row:
    recipe = row["record"]["recipe"]
    evaluation = recipe["evaluation"] or {}
    return {
        **row,
        "model": _model(row),
        "selection": _selection(row["selection"], recipe),
        "target": _target(row),
        "mask_rate": evaluation.get("mask_rate"),
        "controls": evaluation.get("controls"),
        "ci95": (row["ci95_low"], row["ci95_high"]),
        "control_range": (row["control_low"], row["control_high"]),
        "warnings": row.get("warnings") or (),  # older rows have none
    }


def _model(row: Row) -> Model:
    return Model(
        model=row["model"], revision=row["revision"], sites_pattern=row.get("sites_pattern")
    )


def _selection(way: str, recipe: Mapping[str, Any]) -> str:
    if way in ("dims", "random"):
        return way
    own = {"sigma": SIGMA, "relax": False}
    settings = [
        f"{name} {recipe[name]}"
        for name in _SETTINGS
        if recipe.get(name) is not None and recipe[name] != own.get(name)
    ]
    return ", ".join([str(recipe["method"]), *settings])


def _target(row: Row) -> str:
    """Say what else than mode, dims, factor and layers makes two operations differ."""
    sites = "" if row["sites"] == ["output"] else f" at {', '.join(row['sites'])}"
    return f"{' and '.join(row['params'])}{sites}"
