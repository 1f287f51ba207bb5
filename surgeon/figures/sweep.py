"""The pictures that a sweep's measurements make: doses, single dimensions, single layers.

Each is found in the rows: whatever varies alone, with all else equal, is an axis.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import nan
from operator import attrgetter

import numpy as np

from surgeon.edit.changes import Mode
from surgeon.edit.recipe import Dims
from surgeon.figures.grouping import chains, grouped, short_names
from surgeon.figures.picture import (
    OUTLIER,
    Band,
    Line,
    Lines,
    Map,
    Picture,
    Raster,
    Scale,
    Span,
    Strip,
    Ticks,
)
from surgeon.harmless import listed
from surgeon.study.sweep_folder import Measurement

MIN_DIMS = 8
"""Fewer single dimensions are no sweep of them."""

MANY_DIMS = 40
"""As many single dimensions are the random removals to compare each with."""

_COUNT, _FACTOR, _LAYER = "dimensions edited", "factor", "layer"  # the axes of doses
_COLUMNS = 4
_TICKS = 24  # on the width of a page
_ALONE = 0.2  # of a layer: how far the band of a point without neighbours reaches
_FAR = 8  # a factor beyond leaves no room for those about 1
_DIMS_NAMED = 4
_MIDDLE = (0.025, 0.975)
_COLOURS = ((0.0, "#2166ac"), (0.5, "#ffffff"), (1.0, OUTLIER))

_DONE_TO: dict[Mode, str] = {"zero": "zero", "mean": "the mean for", "scale": "scale"}
_edit = attrgetter("mode", "target", "factor")
_edit_and_layers = attrgetter("mode", "target", "factor", "layers")


def draw_sweep(rows: Sequence[Measurement], what: str) -> list[Picture]:
    """Describe every picture that the measurements of one subject make, the widest edits first.

    ``what`` says what their changes are changes of, its unit on a line of its own.
    """
    change = f"change of the {what}"
    throughout = [row for row in rows if row.layers is None]
    in_part = [row for row in rows if row.layers is not None]
    return [
        *_edits(throughout, change),
        *_maps(rows, change),
        *_layers(rows, change),
        *_edits(in_part, change),
    ]


def _edits(rows: Sequence[Measurement], change: str) -> Iterator[Picture]:
    yield from _strips(rows, change)
    yield from _counts(rows, change)
    yield from _factors(rows, change)


def _strips(rows: Sequence[Measurement], change: str) -> Iterator[Picture]:
    for group in grouped(_single_dims(rows), _edit_and_layers).values():
        points = _points(group, lambda row: row.dims[0])
        if len(points) < MIN_DIMS:
            continue
        deltas = np.array([point.delta for point in points])
        low, high, meaning = *_hull(point.band for point in points), "one at random"
        if len(points) >= MANY_DIMS:
            low, high = np.quantile(deltas, _MIDDLE).tolist()
            meaning = "middle 95% of these"
        above = sorted((p for p in points if p.low > high), key=lambda point: -point.delta)
        first, last = int(points[0].x), int(points[-1].x)
        panel = Strip(
            x_title="dimension edited",
            y_title=change,
            dims=np.array([point.x for point in points], dtype=np.int64),
            values=deltas,
            named=tuple(int(point.x) for point in above[:MIN_DIMS]),
            named_are="strongest, their intervals\nabove the band",
            span=Span(low, high, meaning),
            ticks=_whole_ticks(first, last, 1) if last - first < _TICKS else (),
        )
        title = f"One dimension at a time: {edit_in_words(group[0])}, {_where(group[0])}"
        yield Picture(title, (), ((panel,),))


def _maps(rows: Sequence[Measurement], change: str) -> Iterator[Picture]:
    single = [row for row in _single_dims(rows) if len(row.layers or ()) == 1]
    for group in grouped(single, _edit).values():
        cells = grouped(group, lambda row: (_layer(row), row.dims[0]))
        layers = sorted({layer for layer, _ in cells})
        dims = sorted({dim for _, dim in cells})
        if len(layers) < 2 or len(dims) < MIN_DIMS:
            continue
        deltas = np.full((len(layers), len(dims)), np.nan)
        for (layer, dim), same in cells.items():
            deltas[layers.index(layer), dims.index(dim)] = np.mean([row.delta for row in same])
        panel = Map(
            x_title="dimension edited",
            y_title="layer",
            rows=tuple(map(str, layers)),
            columns=tuple(map(str, dims)),
            raster=Raster(deltas, np.tile(dims, (len(layers), 1)), 1, len(dims)),
            scale=Scale(float(np.nanmax(np.abs(deltas))) or 1.0, _COLOURS, title=change),
            value="change",
            form="+.4g",
        )
        yield Picture(f"One dimension in one layer: {edit_in_words(group[0])}", (), ((panel,),))


def _counts(rows: Sequence[Measurement], change: str) -> Iterator[Picture]:
    for group in grouped(rows, _edit_and_layers).values():
        curves = {}
        for selection, same in grouped(group, lambda row: row.selection).items():
            by = "random dims" if selection == "random" else f"by {selection}"
            for name, part in (_nested(same) if selection == "dims" else {by: same}).items():
                points = _points(part, lambda row: len(row.dims), "{:g} dims")
                if len(points) > 1:
                    curves[name] = points
        if curves:
            title = f"Dose: {edit_in_words(group[0])}, {_where(group[0])}"
            yield _dose(title, _COUNT, curves, change)


def _nested(rows: Sequence[Measurement]) -> dict[str, list[Measurement]]:
    """Return the rows of each series of sets that hold the smaller ones, by its name."""
    by_set = grouped(rows, lambda row: frozenset(row.dims))
    found = chains(same[0].dims for same in by_set.values())[: MIN_DIMS - 1]
    names = short_names([chain[-1] for chain in found], _dims_name, _DIMS_NAMED)
    return {
        names[chain[-1]]: [row for dims in chain for row in by_set[frozenset(dims)]]
        for chain in found
    }


def _factors(rows: Sequence[Measurement], change: str) -> Iterator[Picture]:
    scaled = {(row.target, row.layers) for row in rows if row.mode == "scale"}
    # Zero is the factor 0, where there are others.
    dosed = [row for row in rows if row.mode != "mean" and (row.target, row.layers) in scaled]
    for group in grouped(dosed, attrgetter("target", "layers")).values():
        title = f"Dose: scale {group[0].target}, {_where(group[0])}"
        yield from _curves(group, lambda row: row.factor or 0.0, title, _FACTOR, change)


def _layers(rows: Sequence[Measurement], change: str) -> Iterator[Picture]:
    single = [row for row in rows if row.layers and len(row.layers) == 1]
    for group in grouped(single, _edit).values():
        title = f"One layer at a time: {edit_in_words(group[0])}"
        yield from _curves(group, _layer, title, _LAYER, change)


def _curves(
    rows: Sequence[Measurement],
    x: Callable[[Measurement], float],
    title: str,
    axis: str,
    change: str,
) -> Iterator[Picture]:
    """Yield a picture with a curve for each selection, if one has points along the axis."""
    parts = grouped(rows, _edited)
    sets = [part[0].dims for key, part in parts.items() if isinstance(key, frozenset)]
    names = short_names(sets, _dims_name, _DIMS_NAMED)
    curves = {}
    for key, part in parts.items():
        points = _points(part, x, f"{axis} {{:g}}")
        if len(points) < 2:
            continue
        name = names[part[0].dims] if isinstance(key, frozenset) else f"{key} random dims"
        curves[name] = _with_unchanged(points) if axis == _FACTOR else points
    # More are a map.
    if 0 < len(curves) < MIN_DIMS:
        yield _dose(title, axis, curves, change)


def _edited(row: Measurement) -> frozenset[int] | int:
    """Return what one curve is about; random dims are others with each seed, yet one curve."""
    return len(row.dims) if row.selection == "random" else frozenset(row.dims)


@dataclass(frozen=True)
class _Point:
    """The mean change over the seeds at one place of an axis.

    ``low`` and ``high`` hold every seed's 95% interval, ``band`` what random removals did.
    """

    x: float
    label: str
    delta: float
    low: float
    high: float
    band: tuple[float, float]
    known: bool = False  # without being measured


_GAP = _Point(nan, "", nan, nan, nan, (nan, nan))


def _points(
    rows: Iterable[Measurement], x: Callable[[Measurement], float], label: str = ""
) -> list[_Point]:
    return [
        _Point(
            x=place,
            label=label.format(place),
            delta=float(np.mean([row.delta for row in same])),
            low=min(row.ci95[0] for row in same),
            high=max(row.ci95[1] for row in same),
            band=_hull(row.control_range for row in same),
        )
        for place, same in sorted(grouped(rows, x).items())
    ]


def _with_unchanged(points: list[_Point]) -> list[_Point]:
    """Add the factor 1, which changes nothing."""
    if any(point.x == 1 for point in points):
        return points
    label = "factor 1, which changes nothing"
    unchanged = _Point(1.0, label, 0.0, 0.0, 0.0, (0.0, 0.0), known=True)
    return sorted((*points, unchanged), key=lambda point: point.x)


def _dose(title: str, axis: str, curves: Mapping[str, Sequence[_Point]], change: str) -> Picture:
    """Describe each curve in a panel of its own, since each has random removals of its own."""
    places = sorted({point.x for points in curves.values() for point in points})
    columns = min(len(curves), _COLUMNS)
    at = {place: place for place in places}
    ticks: Ticks = ()
    if axis != _FACTOR:
        ticks = _whole_ticks(int(places[0]), int(places[-1]), columns)
    elif places[-1] > _FAR:
        at = {place: float(number) for number, place in enumerate(places)}
        ticks = tuple((number, f"{place:g}") for place, number in at.items())
        axis = f"{axis}, evenly spaced"
    first, last = at[places[0]], at[places[-1]]
    margin = max(0.06 * (last - first), _ALONE)
    panels = []
    for number, (name, points) in enumerate(curves.items()):
        placed = [replace(point, x=at[point.x]) for point in points]
        runs = _runs(placed) if axis == _LAYER else [placed]
        panels.append(
            Lines(
                title=name,
                x_title=axis,
                y_title="" if number % columns else change,
                lines=(_line([point for run in runs for point in (*run, _GAP)][:-1]),),
                x_range=(first - margin, last + margin),
                band=_band([p for run in runs for p in (*_widened(run), _GAP)][:-1]),
                ticks=ticks,
            )
        )
    starts = range(0, len(panels), columns)
    rows = tuple(tuple(panels[start : start + columns]) for start in starts)
    return Picture(title, (), rows, shared="y")


def _whole_ticks(first: int, last: int, columns: int) -> Ticks:
    step = 1 + (last - first) * columns // _TICKS
    return tuple((place, str(place)) for place in range(first, last + 1, step))


def _runs(points: Sequence[_Point]) -> list[list[_Point]]:
    """Part a curve where layers between two points were not measured."""
    # Layers in a row are as far from their numbers in the curve.
    numbered = itertools.groupby(enumerate(points), lambda pair: pair[1].x - pair[0])
    return [[point for _, point in run] for _, run in numbered]


def _widened(run: Sequence[_Point]) -> Sequence[_Point]:
    if len(run) > 1:
        return run
    return [replace(run[0], x=run[0].x + aside) for aside in (-_ALONE, _ALONE)]


def _line(points: Sequence[_Point]) -> Line:
    return Line(
        name="these dimensions",
        colour=OUTLIER,
        xs=[point.x for point in points],
        ys=[point.delta for point in points],
        hover=[f"{point.label}: {point.delta:+.4g}" for point in points],
        low=[point.low for point in points],
        high=[point.high for point in points],
        hollow=[point.known for point in points],
    )


def _band(points: Sequence[_Point]) -> Band:
    """Describe what random removals of as many dims did."""
    return Band(
        xs=[point.x for point in points],
        low=[point.band[0] for point in points],
        high=[point.band[1] for point in points],
        meaning="as many at random",
    )


def _hull(ranges: Iterable[tuple[float, float]]) -> tuple[float, float]:
    low, high = zip(*ranges, strict=True)
    return min(low), max(high)


def _single_dims(rows: Iterable[Measurement]) -> list[Measurement]:
    return [row for row in rows if len(row.dims) == 1 and row.selection != "random"]


def _layer(row: Measurement) -> int:
    """Return the only layer that was edited."""
    (layer,) = row.layers or ()
    return layer


def edit_in_words(row: Measurement) -> str:
    """Say what was done to the dimensions, the layers left out."""
    by = "" if row.factor is None else f" by {row.factor:g}"
    return f"{_DONE_TO[row.mode]} {row.target}{by}"


def _where(row: Measurement) -> str:
    if row.layers is None:
        return "all layers"
    return f"layer{'s' if len(row.layers) > 1 else ''} {listed(row.layers)}"


def _dims_name(dims: Dims, shown: int) -> str:
    return f"dim{'s' * (len(dims) > 1)} {listed(dims, shown)}"
