"""The figures of a sweep as charts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import singledispatch

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from surgeon.harmless import in_chart
from surgeon.plots import content
from surgeon.plots.page import BAND, framed
from surgeon.study.figure import (
    FACTOR,
    LAYER,
    Curve,
    DoseFigure,
    Figure,
    MapFigure,
    Point,
    StripFigure,
)

_BAR = "#4a90c8"
_MARKS = {False: "circle", True: "circle-open"}
_LAYER, _CHART, _PANEL, _BETWEEN = 22, 320, 240, 90  # pixels
_COLUMNS = 4
_TICKS = 24  # on the width of a page
_ALONE = 0.2  # of a layer: how far the band of a point without neighbours reaches
_FAR = 8  # a factor beyond leaves no room for those about 1


@singledispatch
def draw_figure(figure: Figure, what: str) -> go.Figure:
    """Draw a figure of a sweep; ``what`` says what its changes are changes of."""
    raise TypeError(type(figure), what)


@draw_figure.register
def _draw_dose(figure: DoseFigure, what: str) -> go.Figure:
    """Draw each curve in a panel of its own, since each has random removals of its own."""
    columns = min(len(figure.curves), _COLUMNS)
    rows = -(-len(figure.curves) // columns)
    chart = make_subplots(
        rows, columns, shared_yaxes="all", horizontal_spacing=0.02,
        vertical_spacing=_BETWEEN / (_PANEL * rows),
        subplot_titles=[in_chart(curve.name) for curve in figure.curves],
    )  # fmt: skip
    chart.update_annotations(font={"size": 13})
    places = sorted({point.x for curve in figure.curves for point in curve.points})
    even = figure.axis == FACTOR and places[-1] > _FAR
    at = {place: number if even else place for number, place in enumerate(places)}
    for number, curve in enumerate(figure.curves):
        where = {"row": number // columns + 1, "col": number % columns + 1}
        for trace in (_band(curve, figure.axis, at), _line(curve, figure.axis, at)):
            trace.showlegend = number == 0
            chart.add_trace(trace, **where)
    axis = f"{figure.axis}, evenly spaced" if even else figure.axis
    chart = _labelled(chart, axis, what, _BETWEEN + _PANEL * rows)
    chart.update_xaxes(range=_with_margin(list(at.values())))
    if even:
        chart.update_xaxes(tickvals=list(at.values()), ticktext=[f"{place:g}" for place in at])
    elif figure.axis != FACTOR:
        chart.update_xaxes(tick0=0, dtick=1 + int(places[-1] - places[0]) * columns // _TICKS)
    chart.update_yaxes(title="", selector=lambda axis: axis.anchor not in _first(columns, rows))
    return chart


def _first(columns: int, rows: int) -> set[str]:
    """Return the x axes of the panels at the left, as plotly names them."""
    return {
        f"x{row * columns + 1}".removesuffix("1") if row == 0 else f"x{row * columns + 1}"
        for row in range(rows)
    }


def _with_margin(places: list[float]) -> tuple[float, float]:
    margin = max(0.06 * (max(places) - min(places)), _ALONE)
    return min(places) - margin, max(places) + margin


def _band(curve: Curve, axis: str, at: Mapping[float, float]) -> go.Scatter:
    """Return what random removals of as many dims did, as an area."""
    xs: list[float | None] = []
    ys: list[float | None] = []
    for run in _runs(curve.points, axis):
        places, bands = [at[point.x] for point in run], [point.band for point in run]
        if len(run) == 1:
            places, bands = [places[0] - _ALONE, places[0] + _ALONE], bands * 2
        xs += [*places, *reversed(places), None]
        ys += [*(high for _, high in bands), *(low for low, _ in reversed(bands)), None]
    return go.Scatter(
        x=xs[:-1],
        y=ys[:-1],
        mode="lines",
        fill="toself",
        fillcolor=BAND,
        line={"width": 0},
        hoverinfo="skip",
        legendgroup="band",
        name="as many at random",
    )


def _line(curve: Curve, axis: str, at: Mapping[float, float]) -> go.Scatter:
    gap = Point(0, "", 0, 0, 0, (0, 0))
    points = [p for run in _runs(curve.points, axis) for p in (*run, gap)][:-1]

    def shown(value: Callable[[Point], float]) -> list[float | None]:
        return [None if point is gap else value(point) for point in points]

    return go.Scatter(
        x=shown(lambda point: at[point.x]),
        y=shown(lambda point: point.delta),
        mode="lines+markers",
        name="these dimensions",
        legendgroup="these",
        line={"color": content.OUTLIER},
        marker={"size": 8, "symbol": [_MARKS[point.known] for point in points]},
        error_y={
            "type": "data",
            "symmetric": False,
            "array": shown(lambda point: point.high - point.delta),
            "arrayminus": shown(lambda point: point.delta - point.low),
            "thickness": 1,
        },
        text=[f"{point.label}{', which changes nothing' * point.known}" for point in points],
        hovertemplate="%{text}: %{y:+.4g}<extra></extra>",
    )


def _runs(points: Sequence[Point], axis: str) -> list[list[Point]]:
    """Part a curve where layers between two points were not measured."""
    if axis != LAYER:
        return [list(points)]
    # Layers in a row are as far from their numbers in the curve.
    numbered = itertools.groupby(enumerate(points), lambda pair: pair[1].x - pair[0])
    return [[point for _, point in run] for _, run in numbered]


@draw_figure.register
def _draw_strip(figure: StripFigure, what: str) -> go.Figure:
    chart = go.Figure()
    deltas = dict(zip(figure.dims.tolist(), figure.deltas.tolist(), strict=True))
    others = [dim for dim in deltas if dim not in figure.named]
    bars = (
        ("one dimension", _BAR, others),
        ("strongest, their intervals<br>above the band", content.OUTLIER, sorted(figure.named)),
    )
    for name, colour, dims in bars:
        if dims:
            chart.add_trace(_bars(name, colour, {dim: deltas[dim] for dim in dims}))
    for dim in figure.named:
        below = deltas[dim] < 0
        chart.add_annotation(
            x=dim, y=deltas[dim], text=str(dim), showarrow=False, yshift=-10 if below else 10
        )
    low, high = figure.band
    chart.add_hrect(
        y0=low,
        y1=high,
        fillcolor=BAND,
        line_width=0,
        name=figure.band_is,
        showlegend=True,
    )
    chart.update_layout(bargap=0, barmode="overlay", showlegend=True)
    if figure.dims[-1] - figure.dims[0] < _TICKS:
        chart.update_xaxes(tick0=0, dtick=1)
    return _labelled(chart, "dimension edited", what, _CHART)


def _bars(name: str, colour: str, deltas: dict[int, float]) -> go.Bar:
    return go.Bar(
        x=list(deltas),
        y=list(deltas.values()),
        width=1,
        name=name,
        marker={"color": colour, "line": {"width": 0}},
        hovertemplate="dimension %{x}: %{y:+.4g}<extra></extra>",
    )


@draw_figure.register
def _draw_map(figure: MapFigure, what: str) -> go.Figure:
    chart = go.Figure(
        go.Heatmap(
            x=[str(dim) for dim in figure.dims.tolist()],
            y=[str(layer) for layer in figure.layers],
            z=figure.deltas,
            colorscale=[[0.0, "#2166ac"], [0.5, "#ffffff"], [1.0, content.OUTLIER]],
            zmid=0,
            colorbar={
                "title": {"text": _in_lines(what), "side": "right"},
                "thickness": 12,
                "nticks": 5,
            },
            hovertemplate="layer %{y}, dimension %{x}: %{z:+.4g}<extra></extra>",
        )
    )
    chart.update_yaxes(title="layer", autorange="reversed", type="category")
    chart.update_xaxes(nticks=24, type="category")
    return framed(chart, "dimension edited", max(_CHART, _CHART // 2 + _LAYER * len(figure.layers)))


def _labelled(chart: go.Figure, axis: str, what: str, height: int) -> go.Figure:
    chart.add_hline(y=0, line={"width": 1, "color": content.INK})
    chart.update_yaxes(title=_in_lines(what))
    chart.update_layout(legend={"x": 1.01, "y": 1.0})
    return framed(chart, axis, height)


def _in_lines(what: str) -> str:
    # On two lines: the unit of some metrics is a sentence.
    return f"change of the {in_chart(what).replace(' (', '<br>(')}"
