"""The figures that a sweep's measurements make: doses, single dimensions, single layers.

Each is found in the rows: whatever varies alone, with all else equal, is an axis.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from surgeon.study.rows import Measurement

MIN_DIMS = 8
"""Fewer single dimensions are no sweep of them."""

_MANY_DIMS = 40
_MIDDLE = (0.025, 0.975)

_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True)
class Subject:
    """One model measured in one way: what rows must share to be in one figure."""

    model: str
    task: str
    metric: str
    data: str | None


@dataclass(frozen=True)
class Point:
    """The mean change over the seeds at one place of an axis.

    ``low`` and ``high`` hold every seed's 95% interval, ``band`` what random removals did.
    """

    x: float
    label: str
    delta: float
    low: float
    high: float
    band: tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """Points along an axis that alone varies."""

    name: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class DoseFigure:
    """Dose-response: the change over the ``axis``, a curve for each selection."""

    title: str
    axis: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class StripFigure:
    """One dimension at a time: ``dims`` (n,) ascending, the change ``deltas`` (n,) of each.

    ``band`` is what random removals of a single dimension do: the middle 95% of the sweep's own,
    or, where those are few, the range of its controls. ``named`` are the dimensions worth a name:
    the strongest of those whose whole interval lies above the band.
    """

    title: str
    dims: npt.NDArray[np.int64]
    deltas: npt.NDArray[np.float64]
    band: tuple[float, float]
    named: tuple[int, ...]


@dataclass(frozen=True)
class MapFigure:
    """One dimension in one layer at a time: ``deltas`` has shape (layers, dims), NaN for no row."""

    title: str
    layers: tuple[int, ...]
    dims: npt.NDArray[np.int64]
    deltas: npt.NDArray[np.float64]


Figure = DoseFigure | StripFigure | MapFigure


def subjects(rows: Iterable[Measurement]) -> Mapping[Subject, list[Measurement]]:
    """Group measurements by what was measured, in the order of the rows."""
    return _grouped(rows, lambda row: Subject(row.model, row.task, row.metric, row.data))


def figures(rows: Sequence[Measurement]) -> list[Figure]:
    """Return every figure that the measurements of one subject make, the widest edits first."""
    throughout = [row for row in rows if row.layers is None]
    in_part = [row for row in rows if row.layers is not None]
    return [*_doses(throughout), *_maps(rows), *_layers(rows), *_doses(in_part)]


def _doses(rows: Sequence[Measurement]) -> list[Figure]:
    return [*_strips(rows), *_counts(rows), *_factors(rows)]


def _strips(rows: Sequence[Measurement]) -> list[Figure]:
    found: list[Figure] = []
    single = [row for row in rows if len(row.dims) == 1]
    for (operation, factor, layers), group in _grouped(
        single, lambda row: (row.operation, row.factor, row.layers)
    ).items():
        points = _points(group, lambda row: row.dims[0], lambda row: str(row.dims[0]))
        if len(points) < MIN_DIMS:
            continue
        deltas = np.array([point.delta for point in points])
        band = _hull(point.band for point in points)
        if len(points) >= _MANY_DIMS:
            band = tuple(np.quantile(deltas, _MIDDLE).tolist())
        above = sorted((p for p in points if p.low > band[1]), key=lambda point: -point.delta)
        found.append(
            StripFigure(
                title=f"One dimension at a time: {_titled(operation, factor)}, {_where(layers)}",
                dims=np.array([point.x for point in points], dtype=np.int64),
                deltas=deltas,
                band=band,
                named=tuple(int(point.x) for point in above[:MIN_DIMS]),
            )
        )
    return found


def _maps(rows: Sequence[Measurement]) -> list[Figure]:
    found: list[Figure] = []
    single = [row for row in rows if len(row.dims) == 1 and row.layers and len(row.layers) == 1]
    for (operation, factor), group in _grouped(
        single, lambda row: (row.operation, row.factor)
    ).items():
        cells = _grouped(group, lambda row: ((row.layers or (0,))[0], row.dims[0]))
        layers = tuple(sorted({layer for layer, _ in cells}))
        dims = sorted({dim for _, dim in cells})
        if len(layers) < 2 or len(dims) < MIN_DIMS:
            continue
        deltas = np.full((len(layers), len(dims)), np.nan)
        for (layer, dim), same in cells.items():
            deltas[layers.index(layer), dims.index(dim)] = np.mean([row.delta for row in same])
        title = f"One dimension in one layer: {_titled(operation, factor)}"
        found.append(MapFigure(title, layers, np.array(dims, dtype=np.int64), deltas))
    return found


def _counts(rows: Sequence[Measurement]) -> list[Figure]:
    found: list[Figure] = []
    for (operation, factor, layers), group in _grouped(
        rows, lambda row: (row.operation, row.factor, row.layers)
    ).items():
        curves = []
        for selection, same in _grouped(group, lambda row: row.selection).items():
            if selection == "dims" and not _is_nested({row.dims for row in same}):
                continue
            points = _points(same, lambda row: len(row.dims), lambda row: f"{len(row.dims)} dims")
            if len(points) > 1:
                curves.append(Curve(_CHOSEN.get(selection, f"by {selection}"), points))
        if curves:
            title = f"Dose: {_titled(operation, factor)}, {_where(layers)}"
            found.append(DoseFigure(title, "dimensions edited", tuple(curves)))
    return found


def _factors(rows: Sequence[Measurement]) -> list[Figure]:
    scaled = [row for row in rows if row.factor is not None]
    return _curves(
        scaled,
        same=lambda row: (row.operation, row.layers),
        x=lambda row: row.factor or 0.0,
        title=lambda row: f"Dose: {row.operation}, {_where(row.layers)}",
        axis="factor",
    )


def _layers(rows: Sequence[Measurement]) -> list[Figure]:
    single = [row for row in rows if row.layers and len(row.layers) == 1]
    return _curves(
        single,
        same=lambda row: (row.operation, row.factor),
        x=lambda row: (row.layers or (0,))[0],
        title=lambda row: f"One layer at a time: {_titled(row.operation, row.factor)}",
        axis="layer",
    )


def _curves(
    rows: Sequence[Measurement],
    *,
    same: Callable[[Measurement], Hashable],
    x: Callable[[Measurement], float],
    title: Callable[[Measurement], str],
    axis: str,
) -> list[Figure]:
    """Return a figure for each group of rows with a curve for each selection in it."""
    found: list[Figure] = []
    for group in _grouped(rows, same).values():
        curves = []
        for chosen, part in _grouped(group, _chosen).items():
            points = _points(part, x, lambda row: f"{axis} {x(row):g}")
            if len(points) > 1:
                curves.append(Curve(chosen, points))
        if 0 < len(curves) < MIN_DIMS:  # more are a map
            found.append(DoseFigure(title(group[0]), axis, tuple(curves)))
    return found


_CHOSEN = {"dims": "named dims", "random": "random dims"}


def _chosen(row: Measurement) -> str:
    if row.selection == "random":  # other dims with each seed, one curve
        return f"{len(row.dims)} random dims"
    dims = ", ".join(map(str, row.dims[:4])) + (", …" if len(row.dims) > 4 else "")
    return f"dims {dims}"


def _points(
    rows: Iterable[Measurement],
    x: Callable[[Measurement], float],
    label: Callable[[Measurement], str],
) -> tuple[Point, ...]:
    return tuple(
        Point(
            x=place,
            label=label(same[0]),
            delta=float(np.mean([row.delta for row in same])),
            low=min(row.ci95[0] for row in same),
            high=max(row.ci95[1] for row in same),
            band=_hull(row.control_range for row in same),
        )
        for place, same in sorted(_grouped(rows, x).items())
    )


def _grouped(
    rows: Iterable[Measurement], key: Callable[[Measurement], _Key]
) -> dict[_Key, list[Measurement]]:
    groups: dict[_Key, list[Measurement]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def _hull(ranges: Iterable[tuple[float, float]]) -> tuple[float, float]:
    low, high = zip(*ranges, strict=True)
    return min(low), max(high)


def _is_nested(sets: Iterable[tuple[int, ...]]) -> bool:
    """Whether each set of dims holds all smaller ones."""
    ordered = sorted(map(set, sets), key=len)
    return all(small < large for small, large in itertools.pairwise(ordered))


def _titled(operation: str, factor: float | None) -> str:
    return operation if factor is None else f"{operation} by {factor:g}"


def _where(layers: tuple[int, ...] | None) -> str:
    if layers is None:
        return "all layers"
    return f"layer{'s' if len(layers) > 1 else ''} {', '.join(map(str, layers))}"
