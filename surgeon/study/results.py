"""The folder of a sweep: rows as they come, safe from being killed, and a table at the end."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from surgeon.edit import disk
from surgeon.edit.recipe import Mode
from surgeon.edit.staging import replace_file
from surgeon.errors import OutputError
from surgeon.model.files import parse_json
from surgeon.ranking.ranking import SIGMA
from surgeon.study import journal
from surgeon.study.grid import Model
from surgeon.study.jobs import DONE, Row

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


_SHOWN = 120  # characters of what is wrong with a row
_DONE_TO: dict[Mode, str] = {"zero": "zero", "mean": "the mean for", "scale": "scale"}
_SETTINGS = ("sigma", "min_layers", "min_damage", "relax")


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

    @property
    def operation(self) -> str:
        """What was done, in words, the factor and the layers left out."""
        return f"{_DONE_TO[self.mode]} {self.target}"


@dataclass(frozen=True)
class Failure:
    """A cell that gave no result, and why."""

    model: Model
    operation: str
    error: str


def is_sweep(folder: Path) -> bool:
    """Tell whether a folder holds the rows of a sweep."""
    return (folder / ROWS).is_file()


@dataclass(frozen=True)
class Rows:
    """The rows of a sweep's last grid, each cell's last; ``others`` are of other grids."""

    measured: tuple[Measurement, ...]
    failed: tuple[Failure, ...]
    others: int


def read_rows(folder: Path) -> Rows:
    """Read the rows of a sweep, one that still runs included.

    Raises:
        OutputError: a row is damaged.
    """
    from pydantic import TypeAdapter, ValidationError

    path, cells = folder / ROWS, read_grid(folder)
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]  # the last line may be on its way
    measured, failed = TypeAdapter(Measurement), TypeAdapter(Failure)
    found: dict[str, Measurement | Failure] = {}
    others = set()
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            row = parse_json(line)
            if cells is not None and row["cell"] not in cells:
                others.add(row["cell"])
            elif row["status"] == DONE:
                found[row["cell"]] = measured.validate_python(_measured(row))
            else:
                found[row["cell"]] = failed.validate_python(_failed(row))
        except (ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
            reason = " ".join(str(error).split())[:_SHOWN]
            raise OutputError(
                f"{path}:{number}: is no row of a sweep ({reason}); run the sweep again"
            ) from error
    return Rows(
        tuple(row for row in found.values() if isinstance(row, Measurement)),
        tuple(row for row in found.values() if isinstance(row, Failure)),
        len(others),
    )


def _failed(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"model": _model(row), "error": row["error"], "operation": row["operation"]}


def _measured(row: Mapping[str, Any]) -> dict[str, Any]:
    recipe = row["record"]["recipe"]
    evaluation = recipe["evaluation"] or {}
    names = (
        "mode", "layers", "dims", "task", "metric", "data", "seed", "examples", "baseline",
        "delta", "factor", "verdict",
    )  # fmt: skip
    return {
        **{name: row[name] for name in names},
        "model": _model(row),
        "selection": _selection(recipe),
        "target": _target(row),
        "mask_rate": evaluation.get("mask_rate"),
        "controls": evaluation.get("controls"),
        "ci95": (row["ci95_low"], row["ci95_high"]),
        "control_range": (row["control_low"], row["control_high"]),
    }


def _model(row: Mapping[str, Any]) -> Model:
    return Model(row["model"], row["revision"], row.get("sites_pattern"))


def _selection(recipe: Mapping[str, Any]) -> str:
    if recipe["dims"] is not None:
        return "dims"
    if recipe["random"] is not None:
        return "random"
    own = {"sigma": SIGMA, "relax": False}
    set_to = {name: recipe.get(name) for name in _SETTINGS}
    told = [
        f"{name} {value}"
        for name, value in set_to.items()
        if value is not None and value != own.get(name)
    ]
    return ", ".join([str(recipe["method"]), *told])


def _target(row: Mapping[str, Any]) -> str:
    """Say what else than mode, dims, factor and layers makes two operations differ."""
    sites = "" if row["sites"] == ["output"] else f" at {', '.join(row['sites'])}"
    return f"{' and '.join(row['params'])}{sites}"
