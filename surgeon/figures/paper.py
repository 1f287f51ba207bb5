"""Pictures on paper: PNG, SVG and PDF, by matplotlib."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import singledispatch
from textwrap import wrap
from typing import Any

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.text import Text

from surgeon.figures.picture import (
    FEW_POINTS,
    GROUND,
    INK,
    MADE_BY,
    QUIET,
    Bars,
    Dots,
    Line,
    Lines,
    Map,
    Mark,
    Panel,
    Picture,
    spread,
)
from surgeon.harmless import html, plain

DPI = 200
_WIDE = 8  # inches of a picture that is not for narrow screens
_ASIDE: dict[str, Any] = {"textcoords": "offset points", "annotation_clip": False}
_DASHED: dict[str, Any] = {"color": INK, "linewidth": 0.8, "linestyle": (0, (4, 3)), "zorder": 2}
_GREY, _ABSENT = "#d7dee2", "#eceff1"
_APART = 13.0  # pixels between two marks
_CLOSE = 2.0  # and between the names of two lines
_MANY = 16  # layers whose dots are small

_STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.linewidth": 0.6,
    "font.family": "DejaVu Sans",  # comes with matplotlib: every machine draws the same
    "font.size": 9,
    "legend.borderaxespad": 0.2,
    "legend.borderpad": 0.1,
    "legend.columnspacing": 1.4,
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "svg.hashsalt": "surgeon",  # the same ranking gives the same bytes
    "text.color": INK,
    "text.parse_math": False,  # a model may have a $ in its name
    **{f"{axis}tick.color": QUIET for axis in "xy"},
    **{f"{axis}tick.labelcolor": INK for axis in "xy"},
    **{f"{axis}tick.labelsize": 8.5 for axis in "xy"},
}

_UNDATED: dict[str, dict[str, Any]] = {
    "png": {"Software": MADE_BY},
    "svg": {"Date": None, "Creator": MADE_BY},
    "pdf": {"CreationDate": None, "Creator": MADE_BY},
}

_LEFT, _RIGHT, _BETWEEN = 0.8, 0.3, 0.35  # inches, as all that follows
_CHARACTER = 0.075  # of a label
_TOP, _HEADLINE, _LINE, _GAP = 0.22, 0.36, 0.2, 0.16
_NAMED, _POINTED = 0.36, 0.12  # above a panel: where marks are named, and where they only point


def own_style() -> AbstractContextManager[None]:
    """Draw by this module's style, whatever the user's matplotlibrc says."""
    styled: AbstractContextManager[None] = style.context(["default", _STYLE])
    return styled


def render(picture: Picture, form: str) -> tuple[Figure, bytes]:
    """Return a picture, and it as the bytes of a file of the ``form`` "png", "svg" or "pdf"."""
    buffer = io.BytesIO()
    with own_style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # of a name in Chinese, which becomes boxes
        figure = draw(picture)
        figure.savefig(buffer, format=form, dpi=DPI, metadata=_UNDATED[form])
    return figure, buffer.getvalue()


def embedded(picture: Picture) -> str:
    """Return a picture as SVG for a page, which says the words itself."""
    svg = render(replace(picture, headline="", words=()), "svg")[1].decode()
    fits = "chart" if picture.width < _WIDE else "chart wide"
    drawn = svg.partition("<svg")[2]
    named = f'<svg role="img" aria-label="{html(picture.headline)}"{drawn}'
    return f'<div class="{fits}">{named}</div>'


def draw(picture: Picture) -> Figure:
    """Lay a picture out from its top: the words, and the rows of panels."""
    words = [part for line in picture.words for part in wrap(line, int(12.3 * picture.width))]
    top = _TOP + _HEADLINE + _LINE * len(words) + _GAP if picture.headline else 0.0
    rooms = [[_room(panel, first=row is picture.rows[0]) for panel in row] for row in picture.rows]
    height = top + sum(room.above + room.size + room.below for room, *_ in rooms)
    paper = _Paper(figsize=(picture.width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(paper)  # can measure texts
    headline = paper.write(0.25, _TOP, picture.headline, fontsize=14, fontweight="bold")
    taken, free = headline.get_window_extent().width, (picture.width - 0.5) * DPI
    headline.set_fontsize(14 * min(1.0, free / max(taken, 1)))
    for number, line in enumerate(words):
        paper.write(0.25, _TOP + _HEADLINE + number * _LINE, line, fontsize=9.5, color=QUIET)
    for row, places in zip(picture.rows, rooms, strict=True):
        taken = sum(room.right for room in places) + _BETWEEN * (len(row) - 1)
        left = _left_of(row[0])
        unit = (picture.width - left - _RIGHT - taken) / sum(panel.share for panel in row)
        for panel, room in zip(row, places, strict=True):
            _draw(panel, _Place(paper, left, top, unit * panel.share, room))
            left += unit * panel.share + room.right + _BETWEEN
        top += places[0].above + places[0].size + places[0].below
    return paper


class _Paper(Figure):
    """A figure, also for a notebook; positions count in inches from its top left corner."""

    def panel(self, left: float, top: float, width: float, height: float) -> Axes:
        (x, y), (inches, high) = self.at(left, top + height), self.get_size_inches()
        return self.add_axes((x, y, width / inches, height / high))

    def write(self, left: float, top: float, words: str, **font: Any) -> Text:
        """Write a line that hangs from ``top``."""
        return self.text(*self.at(left, top), plain(words), va="top", **font)

    def at(self, left: float, top: float) -> tuple[float, float]:
        return left / self.get_figwidth(), 1 - top / self.get_figheight()

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=DPI / 2)
        return buffer.getvalue()


@dataclass(frozen=True)
class _Room:
    """What a panel takes above its axes for title and names, of itself, below, and to its right."""

    above: float
    size: float
    below: float
    names: float = 0.0
    right: float = 0.0


def _room(panel: Panel, *, first: bool) -> _Room:
    match panel:
        case Map(rows=rows):
            names = _NAMED if first else _POINTED
            size = min(2.7, max(1.1, 0.17 * len(rows)))
            return _Room(0.22 + names, size, 0.62 if panel.x_title else 0.16, names, right=0.65)
        case Dots(rows=rows):
            texts = any(row.text for row in rows)
            return _Room(0.42, 0.235 * len(rows), 0.75, right=0.75 if texts else 0.0)
        case Bars(rows=rows):
            return _Room(0.42, 0.235 * len(rows), 0.75)
        case Lines(marks=marks):
            names = _NAMED if first and marks else 0.0
            return _Room(0.26 + names, 1.75, 0.55 if panel.x_title else 0.28, names, right=0.45)
    raise TypeError(type(panel))


def _left_of(panel: Panel) -> float:
    """Return the room to the left of a row of panels, for the labels of the first."""
    labels = [row.label for row in panel.rows] if isinstance(panel, Dots) else []
    return max(_LEFT, 0.4 + _CHARACTER * max(map(len, labels), default=0))


@dataclass(frozen=True)
class _Place:
    """Where a panel is drawn: the top left corner of its title, and its width."""

    paper: _Paper
    left: float
    top: float
    width: float
    room: _Room

    def axes(self, panel: Panel) -> Axes:
        """Write the title and return the axes below it."""
        self.paper.write(self.left, self.top, panel.title, fontsize=10, fontweight="bold")
        axes = self.paper.panel(self.left, self.top + self.room.above, self.width, self.room.size)
        lines = (plain(line) for line in panel.x_title.split("\n"))
        axes.set(xlabel="\n".join(lines), ylabel=plain(panel.y_title))
        axes.tick_params(labelbottom=bool(panel.x_title))
        return axes


@singledispatch
def _draw(panel: Panel, place: _Place) -> None:
    raise TypeError(type(panel), place)


@_draw.register
def _draw_map(panel: Map, place: _Place) -> None:
    raster, layers = panel.raster, len(panel.rows)
    _draw_marks(panel.marks, place, (-0.5, raster.hidden - 0.5))
    axes = place.axes(panel)
    limit = panel.scale.limit
    colours = LinearSegmentedColormap.from_list("scale", panel.scale.colours, N=1024)
    image = axes.imshow(
        raster.values,
        aspect="auto",
        interpolation="nearest",
        cmap=colours.with_extremes(bad=_ABSENT),
        norm=Normalize(-limit, limit),
        extent=(-0.5, raster.values.shape[1] * raster.width - 0.5, layers - 0.5, -0.5),
    )
    axes.set_xlim(-0.5, raster.hidden - 0.5)
    axes.set_yticks(range(0, layers, panel.row_step), panel.rows[:: panel.row_step])
    stacks = [row.rpartition(" ")[0] for row in panel.rows]
    for layer in range(1, layers):
        if stacks[layer] != stacks[layer - 1]:
            axes.axhline(layer - 0.5, color=INK, linewidth=0.8)
    if place.room.names == _NAMED:
        side = place.left + place.width + 0.2
        size = min(place.room.size, 2.0)
        scale = place.paper.panel(side, place.top + place.room.above, 0.13, size)
        bar = place.paper.colorbar(image, cax=scale, extend="both", extendfrac=0.04)
        values, labels = zip(*panel.scale.ticks, strict=True)
        bar.set_ticks(values, labels=labels)
        scale.tick_params(length=2.5, width=0.6, labelsize=8)


def _draw_marks(marks: Sequence[Mark], place: _Place, x_range: tuple[float, float]) -> None:
    """Name the marks above a panel, moved apart, or only point at them from above a further one."""
    if not marks or not place.room.names:
        return
    top = place.top + place.room.above - place.room.names
    strip = place.paper.panel(place.left, top, place.width, place.room.names)
    strip.set(xlim=x_range, ylim=(0, 1))
    strip.axis("off")
    if place.room.names == _POINTED:
        for mark in marks:
            strip.plot([mark.x, mark.x], [1, 0], color=mark.colour, linewidth=0.7)
        return
    texts = [
        strip.text(
            mark.x, 0.5, mark.text, ha="center", color=mark.colour,
            fontweight="bold" if mark.bold else "normal",
        )
        for mark in marks
    ]  # fmt: skip
    pixel = (x_range[1] - x_range[0]) / strip.get_window_extent().width
    widths = [text.get_window_extent().width * pixel for text in texts]
    places = spread([mark.x for mark in marks], widths, *x_range, _APART * pixel)
    for mark, text, x in zip(marks, texts, places, strict=True):
        text.set_x(x)
        xs = [x, mark.x, mark.x]
        strip.plot(xs, [0.44, 0.16, 0], color=mark.colour, linewidth=0.7, clip_on=False)


def _label_rows(axes: Axes, panel: Dots | Bars) -> None:
    count = len(panel.rows)
    axes.set_ylim(count - 0.5, -0.5)
    axes.set_yticks(range(count), [row.label for row in panel.rows] if panel.y_title else [])
    axes.tick_params(axis="y", length=0)
    for label, row in zip(axes.get_yticklabels(), panel.rows, strict=False):
        if row.bold:
            label.set(color=row.colour, fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    for number in range(0, count, 2):
        axes.axhspan(number - 0.5, number + 0.5, color=GROUND, linewidth=0, zorder=0)


@_draw.register
def _draw_dots(panel: Dots, place: _Place) -> None:
    axes = place.axes(panel)
    _label_rows(axes, panel)
    for number, row in enumerate(panel.rows):
        if row.interval is not None:
            axes.plot(row.interval, [number, number], color=row.colour, linewidth=2.2, zorder=3)
        axes.scatter(
            row.values,
            [number] * len(row.values),
            s=26 if len(row.values) == 1 else 20 if len(row.values) <= _MANY else 12,
            facecolor=[row.colour if filled else "white" for filled in row.filled],
            edgecolor=row.colour,
            linewidth=0.8,
            zorder=4,
        )
        colour = row.colour if row.bold else INK if row.values else QUIET
        axes.annotate(
            row.text, (1, number), (5, 0), ("axes fraction", "data"), va="center", fontsize=8.5,
            color=colour, **_ASIDE,
        )  # fmt: skip
    if panel.span is not None:
        span = panel.span
        axes.axvspan(span.low, span.high, color=_GREY, linewidth=0, zorder=1, label=span.meaning)
    if panel.threshold is not None:
        axes.axvline(panel.threshold.value, label=panel.threshold.label, **_DASHED)
    if panel.log_above != 0:
        axes.axvline(0, color=QUIET, linewidth=0.6, zorder=1)
    axes.margins(x=0.06)
    if panel.log_above == 0:
        axes.set_xscale("log")
    elif panel.log_above is not None:
        axes.set_xscale("symlog", linthresh=panel.log_above)
        axes.set_xlabel(f"{panel.x_title}; logarithmic above {panel.log_above:g}")
    if panel.log_above is not None:
        axes.xaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
    if panel.span is not None:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize=8)
    elif panel.threshold is not None:
        value, label = panel.threshold.value, panel.threshold.label
        unit = ("data", "axes fraction")
        axes.annotate(label, (value, 1), (0, 1.5), unit, ha="center", fontsize=8, **_ASIDE)


@_draw.register
def _draw_bars(panel: Bars, place: _Place) -> None:
    axes = place.axes(panel)
    _label_rows(axes, panel)
    for number, row in enumerate(panel.rows):
        (share,) = row.values
        axes.barh(number, share, height=0.56, color=row.colour)
        colour = INK if share else QUIET
        axes.text(share + 0.02, number, row.text, va="center", fontsize=8.5, color=colour)
    axes.set(xlim=(0, 1.45), xticks=[0, 0.5, 1])
    axes.xaxis.set_major_formatter("{x:.0%}")


@_draw.register
def _draw_lines(panel: Lines, place: _Place) -> None:
    _draw_marks(panel.marks, place, panel.x_range)
    axes = place.axes(panel)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlim(panel.x_range)
    if panel.ticks:
        axes.set_xticks(*zip(*panel.ticks, strict=True))
    else:
        axes.locator_params("x", nbins=8, integer=True)
        axes.xaxis.set_major_formatter("{x:,.0f}")
    if panel.band is not None:
        band = panel.band
        axes.fill_between(
            band.xs, band.low, band.high, color=_GREY, linewidth=0, zorder=1, label=band.meaning
        )
        corner = place.paper.at(place.left + place.width, place.top)
        axes.legend(
            loc="upper right", bbox_to_anchor=corner, fontsize=8.5,
            bbox_transform=place.paper.transFigure, labelcolor=QUIET,
        )  # fmt: skip
    if panel.threshold is not None:
        value, label = panel.threshold.value, panel.threshold.label
        axes.axhline(value, **_DASHED)
        axes.annotate(label, (0, value), (4, 3), ("axes fraction", "data"), fontsize=8, **_ASIDE)
    for line in panel.lines:
        marker = "." if len(line.xs) <= FEW_POINTS and not line.thin else None
        width, zorder = (0.9, 2) if line.thin else (1.4, 3)
        axes.plot(
            line.xs, line.ys, color=line.colour, linewidth=width, marker=marker, markersize=4,
            zorder=zorder,
        )  # fmt: skip
        if line.low:
            axes.vlines(line.xs, line.low, line.high, color=line.colour, linewidth=1)
        if line.mark is not None:
            y = line.ys[line.xs.index(line.mark)]
            axes.axvline(line.mark, color=line.colour, linewidth=0.7, alpha=0.6, zorder=1)
            axes.scatter(
                line.mark, y, s=34, color=line.colour, edgecolor="white", linewidth=0.8,
                zorder=5, clip_on=False,
            )  # fmt: skip
    axes.margins(y=0.08)
    if named := [line for line in panel.lines if line.end]:
        _name_ends(axes, named)


def _name_ends(axes: Axes, lines: Sequence[Line]) -> None:
    """Write the name of each line at its end, moved apart from its neighbours."""
    ordered = sorted(lines, key=lambda line: line.ys[-1])
    low, high = axes.get_ylim()
    pixel = (high - low) / axes.get_window_extent().height
    texts = [
        axes.text(
            1.012, line.ys[-1], line.end, transform=axes.get_yaxis_transform(), va="center",
            fontsize=8.5, color=line.colour, fontweight="bold" if line.bold else "normal",
        )
        for line in ordered
    ]  # fmt: skip
    heights = [text.get_window_extent().height * pixel for text in texts]
    places = spread([line.ys[-1] for line in ordered], heights, low, high, _CLOSE * pixel)
    for text, y in zip(texts, places, strict=True):
        text.set_y(y)
