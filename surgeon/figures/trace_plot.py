"""The picture of a training run on paper: PNG, SVG and PDF, by matplotlib."""

from __future__ import annotations

from textwrap import wrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from surgeon.figures import content, trace_content
from surgeon.figures.content import spread
from surgeon.figures.paper import (
    DPI,
    Paper,
    own_style,
    saved,
)
from surgeon.figures.trace_content import Panel
from surgeon.study.trace_result import Trace

_WIDTH, _LEFT, _RIGHT = 9.0, 0.7, 0.75  # inches, as all that follows
_TOP, _HEADLINE, _LINE = 0.22, 0.36, 0.2
_CHARACTERS = 110  # of a line
_NAME, _PANEL, _BETWEEN, _AXIS = 0.26, 1.75, 0.28, 0.55
_STRIP = 0.3  # the steps at which the bulk was left
_APART, _ASIDE = 2.0, 14.0  # pixels between two names, and between two steps
_FEW = 25  # checkpoints whose points can be seen


def render(trace: Trace, form: str) -> bytes:
    """Return the picture as the bytes of a file of the ``form`` "png", "svg" or "pdf"."""
    with own_style():
        return saved(draw(trace), form)


def draw(trace: Trace) -> Figure:
    """Lay the picture out from its top: the words, and the panels over the same steps."""
    words = [part for line in trace_content.subtitle(trace) for part in wrap(line, _CHARACTERS)]
    panels, inner = trace_content.panels(trace), _WIDTH - _LEFT - _RIGHT
    strip = _STRIP if trace.outliers else 0
    top = _TOP + _HEADLINE + _LINE * len(words) + _BETWEEN
    height = top + strip + len(panels) * (_NAME + _PANEL + _BETWEEN) - _BETWEEN + _AXIS
    paper = Paper.blank(_WIDTH, height)
    headline = paper.text(0.25, _TOP, trace_content.headline(trace), fontsize=14, fontweight="bold")
    room = (_WIDTH - 0.5) * DPI
    headline.set_fontsize(14 * min(1.0, room / headline.get_window_extent().width))
    for number, line in enumerate(words):
        at = _TOP + _HEADLINE + number * _LINE
        paper.text(0.25, at, line, fontsize=9.5, color=content.QUIET)
    for number, panel in enumerate(panels):
        paper.text(_LEFT, top, panel.title, fontsize=10, fontweight="bold")
        if panel.high:
            _explain_band(paper, top, panel)
        if number == 0 and trace.outliers:
            _name_steps(paper.axes(_LEFT, top + _NAME, inner, _STRIP), trace)
            top += _STRIP
        axes = paper.axes(_LEFT, top + _NAME, inner, _PANEL)
        _draw_panel(axes, trace, panel)
        if number < len(panels) - 1:
            axes.tick_params(labelbottom=False)
        else:
            axes.set_xlabel("training step")
        top += _NAME + _PANEL + _BETWEEN
    return paper.figure


def _draw_panel(axes: Axes, trace: Trace, panel: Panel) -> None:
    steps = trace.steps
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlim(steps[0], steps[-1])
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    if panel.high:
        axes.fill_between(
            steps, panel.low, panel.high, color=trace_content.BAND, linewidth=0, zorder=1
        )
        axes.plot(steps, panel.middle, color=content.QUIET, linewidth=0.9, zorder=2)
    if panel.threshold is not None:
        dashes = (0, (4, 3))
        axes.axhline(panel.threshold, color=content.INK, linewidth=0.8, linestyle=dashes, zorder=2)
        axes.annotate(
            f"{panel.threshold:g}σ",
            (0, panel.threshold),
            xycoords=axes.get_yaxis_transform(),
            xytext=(4, 3),
            textcoords="offset points",
            fontsize=8,
        )
    shown, colours = trace_content.shown(trace), trace_content.colours(trace)
    for course, colour, values in zip(shown, colours, panel.series, strict=True):
        marker = "." if len(steps) <= _FEW else None
        axes.plot(steps, values, color=colour, linewidth=1.4, marker=marker, markersize=4, zorder=3)
        if course.left_at is not None:
            place = values[steps.index(course.left_at)]
            axes.axvline(course.left_at, color=colour, linewidth=0.7, alpha=0.6, zorder=1)
            axes.scatter(
                course.left_at, place, s=34, color=colour, edgecolor="white", linewidth=0.8,
                zorder=5, clip_on=False,
            )  # fmt: skip
    axes.margins(y=0.08)
    _name_ends(axes, trace, panel)


def _explain_band(paper: Paper, top: float, panel: Panel) -> None:
    right = _WIDTH - _RIGHT
    words = paper.text(right, top + 0.02, panel.says, ha="right", fontsize=8.5, color=content.QUIET)
    left = right - words.get_window_extent().width / DPI - 0.32
    swatch = paper.axes(left, top + 0.03, 0.24, 0.12)
    swatch.set_facecolor(trace_content.BAND)
    swatch.set(xticks=[], yticks=[])
    swatch.spines[:].set_visible(False)


def _name_steps(strip: Axes, trace: Trace) -> None:
    """Write the steps at which the bulk was left into the strip above a panel."""
    marks = trace_content.left_at(trace)
    steps = trace.steps
    strip.set(xlim=(steps[0], steps[-1]), ylim=(0, 1))
    strip.axis("off")
    texts = [
        strip.text(step, 0.5, f"step {step:,}", ha="center", fontsize=8.5, color=colour)
        for step, colour in marks.items()
    ]
    pixel = (steps[-1] - steps[0]) / strip.get_window_extent().width
    widths = [text.get_window_extent().width * pixel for text in texts]
    places = spread(list(marks), widths, *strip.get_xlim(), _ASIDE * pixel)
    for (step, colour), text, place in zip(marks.items(), texts, places, strict=True):
        text.set_x(place)
        xs = [place, step, step]
        strip.plot(xs, [0.38, 0.12, 0], color=colour, linewidth=0.7, clip_on=False)


def _name_ends(axes: Axes, trace: Trace, panel: Panel) -> None:
    """Write each dimension beside the end of its line, moved apart from its neighbours."""
    named = sorted(
        zip(
            (series[-1] for series in panel.series),
            trace_content.shown(trace),
            trace_content.colours(trace),
            strict=True,
        ),
        key=lambda entry: entry[0],
    )
    low, high = axes.get_ylim()
    pixel = (high - low) / axes.get_window_extent().height
    texts = [
        axes.text(
            1.012, value, str(course.dim), transform=axes.get_yaxis_transform(), va="center",
            fontsize=8.5, color=colour, fontweight="bold" if course.outlier else "normal",
        )
        for value, course, colour in named
    ]  # fmt: skip
    heights = [text.get_window_extent().height * pixel for text in texts]
    wanted = np.array([value for value, _, _ in named])
    places = spread(wanted.tolist(), heights, low, high, _APART * pixel)
    for text, place in zip(texts, places, strict=True):
        text.set_y(place)
