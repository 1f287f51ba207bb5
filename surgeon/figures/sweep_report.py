"""A sweep's report: what its cells did, each among random removals, as tables and figures."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import singledispatch
from pathlib import Path

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from surgeon.edit.staging import replace_file
from surgeon.errors import OutputError
from surgeon.figures import content
from surgeon.figures.page import (
    BAND,
    chart,
    check_page,
    framed,
    is_page,
    page,
    paragraphs,
    table,
)
from surgeon.harmless import html, in_chart
from surgeon.study.figures import (
    FACTOR,
    LAYER,
    MANY_DIMS,
    Curve,
    DoseFigure,
    Figure,
    MapFigure,
    Point,
    StripFigure,
    Subject,
    figures,
    subjects,
)
from surgeon.study.grid import (
    Model,
    model_name,
    path_name,
    short_names,
)
from surgeon.study.measurements import Failure, Measurement, Rows, read_rows
from surgeon.study.sweep_folder import ROWS
from surgeon.tasks.registry import TASKS

_STRONGEST = 40  # rows of a table; the folder has them all
_DIMS = 6
_FIGURES = 40  # of one model and task; a page of more is slow to open


def write_sweep_report(folder: Path, path: Path, *, force: bool = False) -> None:
    """Write one self-contained HTML page about the rows of a sweep.

    It draws every figure that the grid makes: dose-response over the number of dims or the factor,
    one dimension at a time for all layers or in each, one layer at a time; with what random
    removals did as a band.

    Raises:
        OutputError: the folder holds no row of a sweep or a damaged one, or the file exists and
            ``force`` is off, or it cannot be written there.
    """
    check_page(path, force=force)
    read = read_rows(folder)
    measured, failed = read.measured, read.failed
    if not measured and not failed:
        raise OutputError(f"{folder / ROWS}: holds no row yet; run the sweep first")
    numbers = iter(range(1_000_000))
    sections = [paragraphs(_summary(read))]
    models = short_names(
        [*(row.model for row in measured), *(row.model for row in failed)], model_name
    )
    found = subjects(measured)
    headings = short_names(found, lambda subject, parts: _heading(subject, models, parts))
    for subject, rows in found.items():
        sections.append(f"<h2>{html(headings[subject])}</h2>")
        sections.extend(_drawn(rows, subject, numbers))
        sections.append(_strongest(rows))
    if failed:
        sections += ["<h2>Cells that failed</h2>", _failures(failed, models)]
    whole = page(f"Sweep {folder.resolve().name}", "\n".join(sections))
    replace_file(path, whole, is_page if force else None)


def _summary(read: Rows) -> list[str]:
    measured, failed = read.measured, read.failed
    verdicts = Counter(row.verdict for row in measured)
    told = ", ".join(f"{count:,} {verdict}" for verdict, count in verdicts.most_common())
    counted = [f"{len(measured):,} cells measured{': ' if told else ''}{told}"]
    counted += [f"{len(failed):,} failed"] if failed else []
    counted += [f"{read.others:,} of another grid are left out"] if read.others else []
    lines = [f"{'; '.join(counted)}."]
    if not measured:
        return lines
    seeds = {row.seed for row in measured}
    drawn = (
        f"A point or a bar is the mean over {len(seeds)} seeds, and whiskers hold the 95% interval "
        "of every seed"
        if len(seeds) > 1
        else "Whiskers are its 95% interval"
    )
    return [
        *lines,
        (
            f"A change is patched − baseline; more is worse. {drawn}. The grey band is "
            "what random removals of as many dimensions do: the range of the controls"
            f"{' over all seeds' if len(seeds) > 1 else ''} or, of {MANY_DIMS} single dimensions "
            "and more, the middle 95% of the sweep's own."
        ),
    ]


def _heading(subject: Subject, models: Mapping[Model, str], parts: int) -> str:
    data = f" on {path_name(subject.data, parts)}" if subject.data else ""
    masked = f", {subject.mask_rate:.4g} of it masked" if subject.mask_rate is not None else ""
    # Nobody wonders about the number of controls unless nothing else differs.
    controls = f", {subject.controls} controls" if subject.controls and parts > 1 else ""
    return f"{models[subject.model]}: {subject.task}{data}{masked}{controls}"


def _drawn(rows: Sequence[Measurement], subject: Subject, numbers: Iterator[int]) -> Iterator[str]:
    found, task = figures(rows), TASKS.get(subject.task)
    what = f"{subject.metric} ({task.unit})" if task else subject.metric
    for figure in found[:_FIGURES]:
        number = next(numbers)
        yield f"<h3>{html(figure.title)}</h3>"
        yield chart(draw_figure(figure, what), f"figure-{number}", first=number == 0)
    if (left := len(found) - _FIGURES) > 0:
        yield f"<p>and {left} more figures of one selection in fewer layers or sites</p>"


def _strongest(rows: Sequence[Measurement]) -> str:
    ordered = sorted(rows, key=lambda row: -abs(row.delta))
    metric = ordered[0].metric
    heads = ["dims", "operation", "layers", "seed", "verdict", metric, "change", "95% interval",
             "random removals"]  # fmt: skip
    cells = [
        [
            _dims(row),
            row.operation + (f" by {row.factor:g}" if row.factor is not None else ""),
            "all" if row.layers is None else ", ".join(map(str, row.layers)),
            str(row.seed or 0),
            row.verdict,
            f"{row.baseline + row.delta:.4g}".replace("-", "−"),
            _signed(row.delta),
            " to ".join(map(_signed, row.ci95)),
            " to ".join(map(_signed, row.control_range)),
        ]
        for row in ordered[:_STRONGEST]
    ]
    left = len(ordered) - _STRONGEST
    note = f"<p>and {left:,} cells that changed it less, in {ROWS}</p>" if left > 0 else ""
    return table(heads, cells, numbers=4) + note


def _signed(change: float) -> str:
    return f"{change:+.4g}".replace("-", "−")


def _dims(row: Measurement) -> str:
    more = ", …" if len(row.dims) > _DIMS else ""
    return ", ".join(map(str, row.dims[:_DIMS])) + more


def _failures(failed: Sequence[Failure], models: Mapping[Model, str]) -> str:
    counts = Counter((models[f.model], f.error) for f in failed)
    rows = [[model, error, f"{count:,}"] for (model, error), count in counts.most_common()]
    return table(["model", "error", "cells"], rows[:_STRONGEST], numbers=1)


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
