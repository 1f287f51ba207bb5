"""The figures of a sweep as charts."""

from __future__ import annotations

from functools import singledispatch

import plotly.graph_objects as go

from surgeon.plots import content
from surgeon.plots.page import BAND, framed
from surgeon.study.figures import DoseFigure, Figure, MapFigure, StripFigure

_CURVES = (content.OUTLIER, "#2166ac", "#4d9221", "#762a83", "#b35806", "#01665e", content.QUIET)
_LAYER, _CHART = 22, 320  # pixels


@singledispatch
def draw_figure(figure: Figure, metric: str) -> go.Figure:
    """Draw a figure of a sweep; ``metric`` is what its changes are changes of."""
    raise TypeError(type(figure), metric)


@draw_figure.register
def _draw_dose(figure: DoseFigure, metric: str) -> go.Figure:
    chart = go.Figure()
    widest = max(figure.curves, key=lambda curve: len(curve.points))
    xs = [point.x for point in widest.points]
    bands = [point.band for point in widest.points]
    chart.add_trace(
        go.Scatter(
            x=[*xs, *reversed(xs)],
            y=[*(high for _, high in bands), *(low for low, _ in reversed(bands))],
            mode="lines",
            fill="toself",
            fillcolor=BAND,
            line={"width": 0},
            hoverinfo="skip",
            name="random removals",
        )
    )
    for number, curve in enumerate(figure.curves):
        points = curve.points
        chart.add_trace(
            go.Scatter(
                x=[point.x for point in points],
                y=[point.delta for point in points],
                mode="lines+markers",
                name=curve.name,
                line={"color": _CURVES[number % len(_CURVES)]},
                marker={"size": 8},
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": [point.high - point.delta for point in points],
                    "arrayminus": [point.delta - point.low for point in points],
                    "thickness": 1,
                },
                hovertemplate=f"{curve.name}, {figure.axis} %{{x}}: %{{y:+.4g}}<extra></extra>",
            )
        )
    chart.update_layout(showlegend=True, legend={"x": 1.01, "y": 1.0})
    return _labelled(chart, figure.axis, metric, _CHART)


@draw_figure.register
def _draw_strip(figure: StripFigure, metric: str) -> go.Figure:
    chart = go.Figure(
        go.Bar(
            x=figure.dims,
            y=figure.deltas,
            marker={
                "color": [
                    content.OUTLIER if dim in figure.named else "#4a90c8"
                    for dim in figure.dims.tolist()
                ],
                "line": {"width": 0},
            },
            hovertemplate="without %{x}: %{y:+.4g}<extra></extra>",
        )
    )
    deltas = dict(zip(figure.dims.tolist(), figure.deltas.tolist(), strict=True))
    for dim in figure.named:
        chart.add_annotation(x=dim, y=deltas[dim], text=str(dim), showarrow=False, yshift=10)
    chart.add_hrect(y0=figure.band[0], y1=figure.band[1], fillcolor=BAND, line_width=0)
    chart.update_layout(bargap=0)
    return _labelled(chart, "dimension removed", metric, _CHART)


@draw_figure.register
def _draw_map(figure: MapFigure, metric: str) -> go.Figure:
    chart = go.Figure(
        go.Heatmap(
            x=[str(dim) for dim in figure.dims.tolist()],
            y=[str(layer) for layer in figure.layers],
            z=figure.deltas,
            colorscale=[[0.0, "#2166ac"], [0.5, "#ffffff"], [1.0, content.OUTLIER]],
            zmid=0,
            colorbar={"title": f"Δ {metric}", "thickness": 12},
            hovertemplate="layer %{y}, dimension %{x}: %{z:+.4g}<extra></extra>",
        )
    )
    chart.update_yaxes(title="layer", autorange="reversed")
    chart.update_xaxes(nticks=24)
    return framed(chart, "dimension edited", _CHART // 2 + _LAYER * len(figure.layers))


def _labelled(chart: go.Figure, axis: str, metric: str, height: int) -> go.Figure:
    chart.add_hline(y=0, line={"width": 1, "color": content.INK})
    chart.update_yaxes(title=f"change of the {metric}")
    return framed(chart, axis, height)
