"""The picture of a training run as a page to explore: HTML that loads nothing, by plotly."""

from __future__ import annotations

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from surgeon.figures import content, trace_content
from surgeon.figures.page import (
    FONT,
    chart,
    page,
    paragraphs,
)
from surgeon.figures.trace_content import Panel
from surgeon.study.trace_result import Trace

_PANEL, _TOP, _BETWEEN, _BOTTOM = 230, 60, 60, 60  # pixels
_FEW = 25  # checkpoints whose points can be seen
_FILL = "rgba(95, 107, 118, 0.18)"


def render(trace: Trace, form: str) -> bytes:  # noqa: ARG001  (only HTML)
    """Return the page as the bytes of a file.

    Its policy forbids the browser to load anything, so that opening it tells nobody.
    """
    figure = chart(draw(trace), "picture", first=True)
    lines = paragraphs(trace_content.subtitle(trace))
    return page(trace_content.headline(trace), f"{lines}\n{figure}")


def draw(trace: Trace) -> go.Figure:
    """Lay the panels out one below the other, over the same steps."""
    panels = trace_content.panels(trace)
    total = _PANEL * len(panels) + _BETWEEN * (len(panels) - 1)
    figure = make_subplots(
        rows=len(panels),
        cols=1,
        shared_xaxes=True,
        vertical_spacing=_BETWEEN / total,
        subplot_titles=[f"<b>{panel.title}</b>{_band_told(panel)}" for panel in panels],
    )
    figure.update_annotations(x=0, xanchor="left", font={"size": 15}, yshift=6)
    for row, panel in enumerate(panels, start=1):
        _add_band(figure, row, trace, panel)
        _add_lines(figure, row, trace, panel, named=row == 1)
        if panel.threshold is not None:
            figure.add_hline(
                y=panel.threshold,
                line={"width": 1, "dash": "dash", "color": content.INK},
                annotation_text=f"{panel.threshold:g}σ",
                annotation_position="top right",
                row=row,
                col=1,
            )
    figure.update_xaxes(title={"text": "training step", "standoff": 4}, row=len(panels), col=1)
    figure.update_xaxes(range=[trace.steps[0], trace.steps[-1]], ticks="outside", tickformat=",d")
    figure.update_layout(
        height=total + _TOP + _BOTTOM,
        margin={"l": 60, "r": 20, "t": _TOP, "b": _BOTTOM},
        font=FONT,
        plot_bgcolor="white",
        hovermode="x",
        legend={"title": {"text": "dimension"}},
    )
    figure.update_yaxes(gridcolor="#eceff1", zerolinecolor="#c9d1d8")
    return figure


def _band_told(panel: Panel) -> str:
    return f"  <span style='color:{content.QUIET}'>({panel.says})</span>" if panel.high else ""


def _add_band(figure: go.Figure, row: int, trace: Trace, panel: Panel) -> None:
    if not panel.high:
        return
    low, high = (
        go.Scatter(
            x=trace.steps,
            y=values,
            mode="lines",
            line={"width": 0},
            fill=fill,
            fillcolor=_FILL,
            hoverinfo="skip",
            showlegend=False,
        )
        for values, fill in ((panel.low, None), (panel.high, "tonexty"))
    )
    middle = go.Scatter(
        x=trace.steps,
        y=panel.middle,
        mode="lines",
        line={"width": 1, "color": content.QUIET},
        name="bulk",
        customdata=list(zip(panel.low, panel.high, strict=True)),
        hovertemplate="%{y:.2f}σ; band %{customdata[0]:.2f} to %{customdata[1]:.2f}",
        legendgroup="bulk",
        showlegend=row == 1,
    )
    figure.add_traces([low, high, middle], rows=row, cols=1)


def _add_lines(figure: go.Figure, row: int, trace: Trace, panel: Panel, *, named: bool) -> None:
    shown, colours = trace_content.shown(trace), trace_content.colours(trace)
    for course, colour, values in zip(shown, colours, panel.series, strict=True):
        left = course.left_at
        sizes = [11 if step == left else 5 for step in trace.steps]
        seen = [step == left or len(trace.steps) <= _FEW for step in trace.steps]
        figure.add_trace(
            go.Scatter(
                x=trace.steps,
                y=values,
                mode="lines+markers",
                line={"width": 2, "color": colour},
                marker={"size": sizes, "opacity": [float(one) for one in seen]},
                name=str(course.dim) + (f", left at {left:,}" if left is not None else ""),
                customdata=[score * trace.layers for score in course.score],
                hovertemplate=f"%{{y:+.2f}}σ, flagged by %{{customdata:.0f}} of {trace.layers}",
                legendgroup=str(course.dim),
                showlegend=named,
            ),
            row=row,
            col=1,
        )
        if left is not None:
            line = {"width": 1, "color": colour, "dash": "dot"}
            figure.add_vline(x=left, line=line, row=row, col=1)
