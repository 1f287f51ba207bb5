"""Pictures to explore: charts of a page, by plotly."""

from __future__ import annotations

from collections.abc import Iterable
from functools import singledispatch
from typing import Any, TypeAlias

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from surgeon.figures.picture import (
    FEW_POINTS,
    GROUND,
    INK,
    OUTLIER,
    QUIET,
    Band,
    Bars,
    Dots,
    Line,
    Lines,
    Map,
    Panel,
    Picture,
    Strip,
    spread,
)
from surgeon.harmless import in_chart

_BAND = "rgba(95, 107, 118, 0.16)"  # what random removals, or all other dimensions, do
_BAR = "#4a90c8"
_DASHED = {"width": 1, "dash": "dash", "color": INK}
_BETWEEN, _BOTTOM = 80, 60  # pixels below a panel
_TITLE, _NAMES = 50, 90  # above it, without and with marks
_NARROWEST, _DIGIT = 850, 9  # of a map, and of a digit
_FONT = {"family": "system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif", "color": INK}
_CONFIG = {
    "displaylogo": False,
    "modeBarButtonsToRemove": ["sendChartToCloud", "select2d", "lasso2d"],
    "plotlyServerURL": "",  # nowhere to send the chart to
    "responsive": True,
}

_Cell: TypeAlias = dict[str, int]  # row and column of a panel, as plotly takes them


def embedded(figure: go.Figure, name: str, *, first: bool) -> str:
    """Return a figure as HTML. The first of a page brings the script that draws them all.

    ``name`` is its id in the page: a random one would differ from run to run.
    """
    drawn: Any = figure.to_html(
        full_html=False, include_plotlyjs=first, div_id=name, config=_CONFIG
    )
    # Lines in one panel alone can be read on a narrow screen.
    wide = len(list(figure.select_xaxes())) > 1 or figure.data[0].type != "scatter"
    return f'<div class="{"chart wide" if wide else "chart"}">{drawn}</div>'


def draw(picture: Picture) -> go.Figure:
    """Lay the panels of a picture out in their rows."""
    heights = [max(map(_height, row)) for row in picture.rows]
    total = sum(heights) + _BETWEEN * (len(heights) - 1)
    widest = max(picture.rows, key=len)
    small = picture.shared == "y"
    # A panel alone in its row is as wide as all panels of another.
    alone = {} if small else {"colspan": len(widest)}
    figure = make_subplots(
        len(heights),
        len(widest),
        specs=[
            [alone if len(row) == 1 else {}]
            + [{}] * (len(row) - 1)
            + [None] * (len(widest) - len(row))
            for row in picture.rows
        ],
        row_heights=heights,
        column_widths=[panel.share for panel in widest],
        vertical_spacing=_BETWEEN / total,
        horizontal_spacing=0.02 if small else 0.05,
        shared_xaxes=picture.shared == "x",
        shared_yaxes="all" if small else False,
    )
    figure.update_xaxes(zeroline=False, zerolinecolor=QUIET, zerolinewidth=1, title_standoff=4)
    figure.update_yaxes(zerolinecolor=QUIET, zerolinewidth=1)
    top = _TITLE
    for number, row in enumerate(picture.rows, start=1):
        for column, panel in enumerate(row, start=1):
            cell = {"row": number, "col": column}
            figure.update_xaxes(title_text=_markup(panel.x_title), **cell)
            figure.update_yaxes(title_text=_markup(panel.y_title), **cell)
            _draw(panel, figure, cell)
            if isinstance(panel, Map) and panel.marks and number == 1:
                _name_marks(panel, figure)
                top = _NAMES
            _write_title(panel, figure, cell, size=13 if small else 15)
    figure.update_layout(
        height=total + top + _BOTTOM,
        margin={"l": 70, "r": 20, "t": top, "b": _BOTTOM},
        font=_FONT,
        plot_bgcolor=GROUND,
    )
    if picture.shared == "x":
        # What lies at one x is read across all panels.
        figure.update_layout(hovermode="x", plot_bgcolor="white")
        figure.update_yaxes(gridcolor="#eceff1")
    return figure


def _height(panel: Panel) -> int:
    match panel:
        case Map(rows=rows, scale=scale):
            return min(460, max(200 if scale.title else 120, 17 * len(rows)))
        case Dots(rows=rows) | Bars(rows=rows):
            return max(25 * len(rows), 120)
    return 230


def _markup(words: str) -> str:
    """Return words as plotly's markup, of which nothing in them is any."""
    return "<br>".join(map(in_chart, words.split("\n")))


def _write_title(panel: Panel, figure: go.Figure, cell: _Cell, size: int) -> None:
    title = f"<b>{_markup(panel.title)}</b>"
    if isinstance(panel, Lines) and panel.band and len(panel.lines) > 1:  # else in the legend
        title += f"  <span style='color:{QUIET}'>({_markup(panel.band.meaning)})</span>"
    figure.add_annotation(
        text=title,
        x=0,
        xref="x domain",
        xanchor="left",
        y=1,
        yref="y domain",
        yanchor="bottom",
        yshift=36 if isinstance(panel, Map) and panel.marks and cell["row"] == 1 else 6,
        showarrow=False,
        font={"size": size},
        **cell,
    )


@singledispatch
def _draw(panel: Panel, figure: go.Figure, cell: _Cell) -> None:
    raise TypeError(type(panel), figure, cell)


@_draw.register
def _draw_map(panel: Map, figure: go.Figure, cell: _Cell) -> None:
    raster, scale = panel.raster, panel.scale
    places = (
        {"x": panel.columns}
        if panel.columns
        else {"x0": (raster.width - 1) / 2, "dx": raster.width}
    )
    figure.add_heatmap(
        z=raster.values.astype(np.float32),
        y=panel.rows,
        customdata=raster.dims.astype(np.int32),
        coloraxis="coloraxis",
        hovertemplate=f"dim %{{customdata}}, layer %{{y}}: {_markup(panel.value)} "
        f"%{{z:{panel.form}}}{panel.unit}<extra></extra>",
        **places,
        **cell,
    )
    if panel.columns:
        figure.update_xaxes(type="category", nticks=24, **cell)
    else:
        figure.update_xaxes(range=[-0.5, raster.hidden - 0.5], ticks="outside", **cell)
    figure.update_yaxes(
        type="category", range=[len(panel.rows) - 0.5, -0.5], dtick=panel.row_step, **cell
    )
    values, labels = zip(*scale.ticks, strict=True) if scale.ticks else (None, None)
    figure.update_layout(
        coloraxis={
            "colorscale": scale.colours,
            "cmin": -scale.limit,
            "cmax": scale.limit,
            "colorbar": {
                "title": {"text": _markup(scale.title), "side": "right"},
                "len": min(_height(panel), 220),
                "lenmode": "pixels",
                "y": 1,
                "yanchor": "top",
                "thickness": 14,
                "tickvals": values,
                "ticktext": labels,
                "nticks": 5,
            },
        }
    )


def _name_marks(panel: Map, figure: go.Figure) -> None:
    """Write the marks above the first panel, moved apart on the narrowest page."""
    marks = panel.marks
    wanted = [mark.x * _NARROWEST / panel.raster.hidden for mark in marks]
    widths = [_DIGIT * len(mark.text) for mark in marks]
    places = spread(wanted, widths, 0, _NARROWEST, 6)
    for mark, own, x in zip(marks, wanted, places, strict=True):
        text = f"<b>{_markup(mark.text)}</b>" if mark.bold else _markup(mark.text)
        stroke = {"arrowhead": 0, "arrowwidth": 1, "arrowcolor": mark.colour}
        font, at = {"color": mark.colour, "size": 13}, {"x": mark.x, "y": -0.5, "row": 1, "col": 1}
        figure.add_annotation(text=text, ax=x - own, ay=-22, font=font, **stroke, **at)


@_draw.register
def _draw_dots(panel: Dots, figure: go.Figure, cell: _Cell) -> None:
    for number, row in enumerate(panel.rows):
        low, high = row.interval or (0, 0)
        figure.add_scatter(
            x=row.values,
            y=[number] * len(row.values),
            mode="markers",
            marker={
                "size": 9 if row.interval else 8,
                "color": [row.colour if filled else "white" for filled in row.filled],
                "line": {"color": row.colour, "width": 1.2},
            },
            error_x={
                "array": [high - value for value in row.values],
                "arrayminus": [value - low for value in row.values],
                "thickness": 2.5,
                "width": 0,
                "color": row.colour,
                "visible": row.interval is not None,
            },
            hovertext=list(map(in_chart, row.hover)),
            hovertemplate="%{hovertext}<extra></extra>",
            showlegend=False,
            **cell,
        )
        colour = row.colour if row.bold else INK if row.values else QUIET
        figure.add_annotation(
            text=_markup(row.text), x=1, xref="x domain", xanchor="left", xshift=5, y=number,
            showarrow=False, font={"color": colour}, **cell,
        )  # fmt: skip
    _label_rows(panel, figure, cell)
    legend = []
    # Shapes are left out of panels that have no trace yet.
    if panel.span is not None:
        low, high = panel.span.low, panel.span.high
        figure.add_vrect(x0=low, x1=high, fillcolor=_BAND, line_width=0, layer="below", **cell)
        legend.append(f"grey: {panel.span.meaning}")
    if panel.threshold is not None:
        figure.add_vline(x=panel.threshold.value, line=_DASHED, **cell)
        legend.append(f"dashed: {panel.threshold.label}")
    if panel.log_above == 0:
        figure.update_xaxes(type="log", dtick="D2", **cell)
    title = _markup("\n".join(filter(None, (panel.x_title, "; ".join(legend)))))
    figure.update_xaxes(title_text=title, zeroline=True, **cell)


@_draw.register
def _draw_bars(panel: Bars, figure: go.Figure, cell: _Cell) -> None:
    figure.add_bar(
        x=[value for row in panel.rows for value in row.values],
        y=list(range(len(panel.rows))),
        orientation="h",
        width=0.6,
        marker_color=[row.colour for row in panel.rows],
        text=[_markup(row.text) for row in panel.rows],
        textposition="outside",
        cliponaxis=False,
        hovertext=[in_chart(text) for row in panel.rows for text in row.hover],
        hovertemplate="%{hovertext}<extra></extra>",
        showlegend=False,
        **cell,
    )
    _label_rows(panel, figure, cell)
    figure.update_xaxes(range=[0, 1.4], tickvals=[0, 0.5, 1], tickformat=".0%", **cell)


def _label_rows(panel: Dots | Bars, figure: go.Figure, cell: _Cell) -> None:
    """Label the rows, those of outliers and of what was removed in bold."""
    labels = [
        f"<b style='color:{row.colour}'>{label}</b>" if row.bold else label
        for row in panel.rows
        for label in [_markup(row.label)]
    ]
    figure.update_yaxes(
        range=[len(labels) - 0.5, -0.5],
        tickvals=list(range(len(labels))),
        ticktext=labels if panel.y_title else [],
        ticklabelstandoff=4,
        showticklabels=bool(panel.y_title),
        zeroline=False,
        **cell,
    )


@_draw.register
def _draw_lines(panel: Lines, figure: go.Figure, cell: _Cell) -> None:
    shown = {trace.name for trace in figure.data}
    if panel.band is not None:
        shows = len(panel.lines) == 1 and panel.band.meaning not in shown
        figure.add_trace(_area(panel.band, showlegend=shows), **cell)
    for line in panel.lines:
        figure.add_trace(_line(line, showlegend=line.name not in shown), **cell)
        if line.mark is not None:
            stroke = {"width": 1, "color": line.colour, "dash": "dot"}
            figure.add_vline(x=line.mark, line=stroke, **cell)
    if panel.threshold is not None:
        figure.add_hline(
            y=panel.threshold.value,
            line=_DASHED,
            annotation_text=panel.threshold.label,
            annotation_position="top right",
            **cell,
        )
    figure.update_xaxes(range=panel.x_range, ticks="outside", tickformat=",", **cell)
    _set_ticks(panel.ticks, figure, cell)


def _area(band: Band, *, showlegend: bool) -> go.Scatter:
    """Return a band as an area, in parts where it is broken."""
    xs, ys = [], []
    for run in np.ma.clump_unmasked(np.ma.masked_invalid(band.xs)):  # type: ignore[no-untyped-call]
        xs += [*band.xs[run], *reversed(band.xs[run]), None]
        ys += [*band.high[run], *reversed(band.low[run]), None]
    return go.Scatter(
        x=xs[:-1],
        y=ys[:-1],
        mode="lines",
        fill="toself",
        fillcolor=_BAND,
        line={"width": 0},
        hoverinfo="skip",
        name=band.meaning,
        legendgroup=band.meaning,
        showlegend=showlegend,
    )


def _line(line: Line, *, showlegend: bool) -> go.Scatter:
    stressed = [x == line.mark for x in line.xs]
    few = len(line.xs) <= FEW_POINTS
    return go.Scatter(
        x=line.xs,
        y=line.ys,
        mode="lines" if line.thin else "lines+markers",
        line={"width": 1 if line.thin else 2, "color": line.colour},
        marker={
            "size": [11 if one else 8 if line.low else 5 for one in stressed],
            "opacity": [float(one or few) for one in stressed],
            "symbol": ["circle-open" if known else "circle" for known in line.hollow] or None,
        },
        error_y={
            "array": np.subtract(line.high, line.ys),
            "arrayminus": np.subtract(line.ys, line.low),
            "thickness": 1,
        }
        if line.low
        else None,
        name=line.name,
        legendgroup=line.name,
        showlegend=showlegend,
        hovertext=list(map(in_chart, line.hover)),
        hovertemplate="%{hovertext}",
    )


@_draw.register
def _draw_strip(panel: Strip, figure: go.Figure, cell: _Cell) -> None:
    named = np.isin(panel.dims, panel.named)
    groups = (("one dimension", _BAR, ~named), (_markup(panel.named_are), OUTLIER, named))
    for name, colour, chosen in groups:
        if chosen.any():
            figure.add_bar(
                x=panel.dims[chosen],
                y=panel.values[chosen],
                width=1,
                name=name,
                marker={"color": colour, "line": {"width": 0}},
                hovertemplate="dimension %{x}: %{y:+.4g}<extra></extra>",
                showlegend=True,
                **cell,
            )
    for dim, value in zip(panel.dims[named], panel.values[named], strict=True):
        shift = -10 if value < 0 else 10
        figure.add_annotation(x=dim, y=value, text=str(dim), showarrow=False, yshift=shift, **cell)
    figure.add_hrect(
        y0=panel.span.low,
        y1=panel.span.high,
        fillcolor=_BAND,
        line_width=0,
        name=panel.span.meaning,
        showlegend=True,
        **cell,
    )
    figure.update_layout(bargap=0, barmode="overlay")
    _set_ticks(panel.ticks, figure, cell)


def _set_ticks(ticks: Iterable[tuple[float, str]], figure: go.Figure, cell: _Cell) -> None:
    if ticks:
        values, labels = zip(*ticks, strict=True)
        figure.update_xaxes(tickvals=values, ticktext=list(map(_markup, labels)), **cell)
