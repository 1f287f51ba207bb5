"""The rows of a sweep read back: what was measured, and what failed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surgeon.errors import OutputError
from surgeon.study.results import ROWS
from surgeon.study.work import DONE

_SHOWN = 120  # characters of what is wrong with a row


@dataclass(frozen=True)
class Measurement:
    """A cell that was measured.

    Attributes:
        model: with its revision, as the grid names it.
        selection: how the dims were chosen: "dims", "random" or a method's name.
        operation: what was done to them, in words, the layers left out.
        layers: those that were edited; None for all.
        dims: what was edited, in the order of the selection.
        task: what was measured, on ``data`` (None: the built-in sample).
        baseline: the metric of the model as it is.
        delta: patched − baseline, with its 95% interval ``ci95``.
        control_range: that of the changes that random removals make.
        verdict: on the change.
    """

    model: str
    selection: str
    operation: str
    factor: float | None
    layers: tuple[int, ...] | None
    dims: tuple[int, ...]
    task: str
    metric: str
    data: str | None
    seed: int | None
    examples: int
    baseline: float
    delta: float
    ci95: tuple[float, float]
    control_range: tuple[float, float]
    verdict: str


@dataclass(frozen=True)
class Failure:
    """A cell that gave no result, and why."""

    model: str
    operation: str
    error: str


def is_sweep(folder: Path) -> bool:
    """Tell whether a folder holds the rows of a sweep."""
    return (folder / ROWS).is_file()


def read_rows(folder: Path) -> tuple[tuple[Measurement, ...], tuple[Failure, ...]]:
    """Read the rows of a sweep, one that still runs included.

    Raises:
        OutputError: a row is damaged.
    """
    from pydantic import TypeAdapter, ValidationError

    path = folder / ROWS
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]  # the last line may be on its way
    measured, failed = TypeAdapter(Measurement), TypeAdapter(Failure)
    measurements, failures = [], []
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            row = json.loads(line)
            if row["status"] == DONE:
                measurements.append(measured.validate_python(_measured(row)))
            else:
                fields = {"model": _model(row), "error": row["error"]}
                failures.append(failed.validate_python({**fields, "operation": row["operation"]}))
        except (ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
            reason = " ".join(str(error).split())[:_SHOWN]
            raise OutputError(
                f"{path}:{number}: is no row of a sweep ({reason}); run the sweep again"
            ) from error
    return tuple(measurements), tuple(failures)


def _measured(row: Mapping[str, Any]) -> dict[str, Any]:
    recipe = row["record"]["recipe"]
    names = (
        "layers", "dims", "task", "metric", "data", "seed", "examples", "baseline", "delta",
        "factor", "verdict",
    )  # fmt: skip
    return {
        **{name: row[name] for name in names},
        "model": _model(row),
        "selection": _selection(recipe),
        "operation": _operation(row),
        "ci95": (row["ci95_low"], row["ci95_high"]),
        "control_range": (row["control_low"], row["control_high"]),
    }


def _model(row: Mapping[str, Any]) -> str:
    name = Path(row["model"]).name if Path(row["model"]).is_absolute() else row["model"]
    return f"{name}@{row['revision']}" if row["revision"] else str(name)


def _selection(recipe: Mapping[str, Any]) -> str:
    if recipe["dims"] is not None:
        return "dims"
    return "random" if recipe["random"] is not None else str(recipe["method"])


def _operation(row: Mapping[str, Any]) -> str:
    """Say what else than dims, factor and layers makes two operations differ."""
    what = {"zero": "zero", "mean": "the mean for", "scale": "scale"}[row["mode"]]
    sites = "" if row["sites"] == ["output"] else f" at {', '.join(row['sites'])}"
    return f"{what} {' and '.join(row['params'])}{sites}"
