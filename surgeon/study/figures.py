"""The figures that a sweep's measurements make: doses, single dimensions, single layers.

Each is found in the rows: whatever varies alone, with all else equal, is an axis.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from surgeon.study.cells import Dims, chains
from surgeon.study.grid import Model, short_names
from surgeon.study.measurements import Measurement

MIN_DIMS = 8
"""Fewer single dimensions are no sweep of them."""

MANY_DIMS = 40
"""As many single dimensions are the random removals to compare each with."""

_DIMS_NAMED = 4
_MIDDLE = (0.025, 0.975)

_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True)
class Subject:
    """One model measured in one way: what rows must share to be in one figure."""

    model: Model
    task: str
    metric: str
    data: str | None
    mask_rate: float | None
    controls: int | None


def subjects(rows: Iterable[Measurement]) -> Mapping[Subject, list[Measurement]]:
    """Group measurements by what was measured, in the order of the rows."""
    return _grouped(
        rows,
        lambda row: Subject(row.model, row.task, row.metric, row.data, row.mask_rate, row.controls),
    )


def figures(rows: Sequence[Measurement]) -> list[Figure]:
    """Return every figure that the measurements of one subject make, the widest edits first."""
    throughout = [row for row in rows if row.layers is None]
    in_part = [row for row in rows if row.layers is not None]
    return [*_doses(throughout), *_maps(rows), *_layers(rows), *_doses(in_part)]


def _doses(rows: Sequence[Measurement]) -> list[Figure]:
    return [*_strips(rows), *_counts(rows), *_factors(rows)]


def _strips(rows: Sequence[Measurement]) -> list[Figure]:
    found: list[Figure] = []
    single = [row for row in rows if len(row.dims) == 1 and row.selection != "random"]
    for (operation, factor, layers), group in _grouped(
        single, lambda row: (row.operation, row.factor, row.layers)
    ).items():
        points = _points(group, lambda row: row.dims[0], lambda row: str(row.dims[0]))
        if len(points) < MIN_DIMS:
            continue
        deltas = np.array([point.delta for point in points])
        band, band_is = _hull(point.band for point in points), "one at random"
        if len(points) >= MANY_DIMS:
            band, band_is = tuple(np.quantile(deltas, _MIDDLE).tolist()), "middle 95% of these"
        above = sorted((p for p in points if p.low > band[1]), key=lambda point: -point.delta)
        found.append(
            StripFigure(
                title=f"One dimension at a time: {_titled(operation, factor)}, {_where(layers)}",
                dims=np.array([point.x for point in points], dtype=np.int64),
                deltas=deltas,
                band=band,
                band_is=band_is,
                named=tuple(int(point.x) for point in above[:MIN_DIMS]),
            )
        )
    return found


def _maps(rows: Sequence[Measurement]) -> list[Figure]:
    found: list[Figure] = []
    single = [
        row
        for row in rows
        if len(row.dims) == 1 and row.selection != "random" and len(row.layers or ()) == 1
    ]
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
            parts = _nested(same) if selection == "dims" else {_by(selection): same}
            for name, part in parts.items():
                points = _points(
                    part, lambda row: len(row.dims), lambda row: f"{len(row.dims)} dims"
                )
                if len(points) > 1:
                    curves.append(Curve(name, points))
        if curves:
            title = f"Dose: {_titled(operation, factor)}, {_where(layers)}"
            found.append(DoseFigure(title, COUNT, tuple(curves)))
    return found


def _by(selection: str) -> str:
    return "random dims" if selection == "random" else f"by {selection}"


def _nested(rows: Sequence[Measurement]) -> dict[str, list[Measurement]]:
    """Return the rows of each series of sets that hold the smaller ones, by its name."""
    by_set = _grouped(rows, lambda row: frozenset(row.dims))
    found = chains(same[0].dims for same in by_set.values())[: MIN_DIMS - 1]
    names = _names_of(chain[-1] for chain in found)
    return {
        names[chain[-1]]: [row for dims in chain for row in by_set[frozenset(dims)]]
        for chain in found
    }


def _factors(rows: Sequence[Measurement]) -> list[Figure]:
    found: list[Figure] = []
    scaled = {(row.target, row.layers) for row in rows if row.mode == "scale"}
    # Zero is the factor 0, where there are others.
    dosed = [row for row in rows if row.mode != "mean" and (row.target, row.layers) in scaled]
    for group in _grouped(dosed, lambda row: (row.target, row.layers)).values():
        title = f"Dose: scale {group[0].target}, {_where(group[0].layers)}"
        found += _curves(group, lambda row: row.factor or 0.0, title, FACTOR)
    return found


def _layers(rows: Sequence[Measurement]) -> list[Figure]:
    found: list[Figure] = []
    single = [row for row in rows if row.layers and len(row.layers) == 1]
    for (operation, factor), group in _grouped(
        single, lambda row: (row.operation, row.factor)
    ).items():
        title = f"One layer at a time: {_titled(operation, factor)}"
        found += _curves(group, lambda row: (row.layers or (0,))[0], title, LAYER)
    return found


def _curves(
    rows: Sequence[Measurement], x: Callable[[Measurement], float], title: str, axis: str
) -> list[Figure]:
    """Return a figure with a curve for each selection, if one has points along the axis."""
    parts = _grouped(rows, _edited)
    names = _names_of(part[0].dims for key, part in parts.items() if isinstance(key, frozenset))
    curves = []
    for key, part in parts.items():
        points = _points(part, x, lambda row: f"{axis} {x(row):g}")
        if len(points) < 2:
            continue
        name = names[part[0].dims] if isinstance(key, frozenset) else f"{key} random dims"
        curves.append(Curve(name, _with_unchanged(points) if axis == FACTOR else points))
    # More are a map.
    return [DoseFigure(title, axis, tuple(curves))] if 0 < len(curves) < MIN_DIMS else []


def _edited(row: Measurement) -> frozenset[int] | int:
    """Return what one curve is about; random dims are others with each seed, yet one curve."""
    return len(row.dims) if row.selection == "random" else frozenset(row.dims)


def _names_of(sets: Iterable[Dims]) -> dict[Dims, str]:
    return short_names(sets, _dims_name, _DIMS_NAMED)


def _dims_name(dims: Dims, shown: int) -> str:
    more = ", …" if len(dims) > shown else ""
    return f"dim{'s' * (len(dims) > 1)} {', '.join(map(str, dims[:shown]))}{more}"


def _with_unchanged(points: tuple[Point, ...]) -> tuple[Point, ...]:
    """Add the factor 1, which changes nothing."""
    if any(point.x == 1 for point in points):
        return points
    unchanged = Point(1.0, "factor 1", 0.0, 0.0, 0.0, (0.0, 0.0), known=True)
    return tuple(sorted((*points, unchanged), key=lambda point: point.x))


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


def _titled(operation: str, factor: float | None) -> str:
    return operation if factor is None else f"{operation} by {factor:g}"


def _where(layers: tuple[int, ...] | None) -> str:
    if layers is None:
        return "all layers"
    return f"layer{'s' if len(layers) > 1 else ''} {', '.join(map(str, layers))}"


COUNT, FACTOR, LAYER = "dimensions edited", "factor", "layer"
"""The axes of doses."""


@dataclass(frozen=True)
class Point:
    """The mean change over the seeds at one place of an axis.

    ``low`` and ``high`` hold every seed's 95% interval, ``band`` what random removals did.
    ``known`` is a point that nobody had to measure.
    """

    x: float
    label: str
    delta: float
    low: float
    high: float
    band: tuple[float, float]
    known: bool = False


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

    ``band`` is what random removals of a single dimension do, and ``band_is`` how it was found:
    the middle 95% of the sweep's own, or, where those are few, the range of its controls.
    ``named`` are the dimensions worth a name: the strongest of those whose whole interval lies
    above the band.
    """

    title: str
    dims: npt.NDArray[np.int64]
    deltas: npt.NDArray[np.float64]
    band: tuple[float, float]
    band_is: str
    named: tuple[int, ...]


@dataclass(frozen=True)
class MapFigure:
    """One dimension in one layer at a time: ``deltas`` has shape (layers, dims), NaN for no row."""

    title: str
    layers: tuple[int, ...]
    dims: npt.NDArray[np.int64]
    deltas: npt.NDArray[np.float64]


Figure = DoseFigure | StripFigure | MapFigure
