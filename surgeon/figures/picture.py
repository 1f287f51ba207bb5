"""A picture described once: words, and panels of five kinds in rows, whatever draws them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

INK, QUIET, FAINT = "#1a1a1a", "#5f6b76", "#c9d1d8"
OUTLIER, REMOVED = "#b2182b", "#6a2c91"
GROUND = "#f5f7f8"

MADE_BY = "norm-surgeon"
"""What a picture's file says of what drew it."""

MAX_COLUMNS = 550
"""Of a map; more would be too narrow to see on a page or a screen."""

FEW_POINTS = 25
"""So many points of a line can be seen one by one."""

Ticks: TypeAlias = tuple[tuple[float, str], ...]
"""Label by place on an axis or a scale; where there are none, it has numbers of its own."""


@dataclass(frozen=True)
class Picture:
    """Words above rows of panels side by side.

    ``width`` is in inches on paper. The panels have one x axis ("x": below each other, as steps of
    one run), one y axis ("y": small multiples, each as wide as the others), or each their own.
    """

    headline: str
    words: tuple[str, ...]
    rows: tuple[tuple[Panel, ...], ...]
    width: float = 11.0
    shared: Literal["x", "y"] | None = None


@dataclass(frozen=True, kw_only=True)
class Panel:
    """What every panel has; ``share`` is its part of the width of its row."""

    title: str = ""
    x_title: str = ""
    y_title: str = ""
    share: float = 1.0


@dataclass(frozen=True)
class Mark:
    """A place on the x axis that is named above the first of the panels that have it."""

    x: int
    text: str
    colour: str
    bold: bool = True


@dataclass(frozen=True)
class Span:
    """A part of an axis, such as where random removals lie, and what it means."""

    low: float
    high: float
    meaning: str


@dataclass(frozen=True)
class Threshold:
    """A value of an axis at which something counts, and its label."""

    value: float
    label: str


@dataclass(frozen=True)
class Raster:
    """A map's cells, of ``width`` neighbouring dimensions each, out of ``hidden``.

    ``values`` and ``dims`` have shape (layers, columns): the value farthest from 0 in each cell,
    and the dimension that has it.
    """

    values: npt.NDArray[np.float64]
    dims: npt.NDArray[np.int64]
    width: int
    hidden: int


def pooled(values: npt.NDArray[np.float64]) -> Raster:
    """Keep of neighbouring dimensions the one farthest from 0, so that no outlier is lost.

    Args:
        values: of shape (layers, hidden), rows of NaN allowed.
    """
    layers, hidden = values.shape
    width = -(-hidden // MAX_COLUMNS)
    columns = -(-hidden // width)
    padded = np.pad(values, ((0, 0), (0, columns * width - hidden)))
    cells = padded.reshape(layers, columns, width)
    # An absent vector is NaN throughout; argmax then gives its first dimension.
    farthest = np.abs(cells).argmax(axis=2)
    dims = np.minimum(farthest + width * np.arange(columns), hidden - 1)
    return Raster(
        np.take_along_axis(cells, farthest[..., None], axis=2)[..., 0], dims, width, hidden
    )


@dataclass(frozen=True)
class Scale:
    """The colours of values from −``limit`` to ``limit``, given at places from 0 to 1.

    ``ticks`` are label by value; without any, the scale has numbers of its own.
    """

    limit: float
    colours: tuple[tuple[float, str], ...]
    ticks: Ticks = ()
    title: str = ""


@dataclass(frozen=True, kw_only=True)
class Map(Panel):
    """A colour for each layer and dimension, the first layer on top.

    The pointer shows ``value``, which says what it is, with the number in ``form`` and ``unit``.
    ``columns`` are labels where the dimensions are not all of a range.
    """

    rows: tuple[str, ...]
    raster: Raster
    scale: Scale
    value: str
    form: str
    unit: str = ""
    marks: tuple[Mark, ...] = ()
    columns: tuple[str, ...] = ()

    @property
    def row_step(self) -> int:
        """At every how many rows the axis has a label."""
        return -(-len(self.rows) // 13)


@dataclass(frozen=True)
class LabelRow:
    """The dots of one label, or its bar: ``values`` (n,), ``filled`` and ``hover`` of each."""

    label: str
    colour: str
    bold: bool
    values: Sequence[float] = ()
    filled: Sequence[bool] = ()
    hover: Sequence[str] = ()
    interval: tuple[float, float] | None = None
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Dots(Panel):
    """Values as dots in rows, the first on top; labels stand where there is a ``y_title``.

    ``log_above`` makes the axis logarithmic, beyond a value or, with 0, all of it.
    """

    rows: tuple[LabelRow, ...]
    span: Span | None = None
    threshold: Threshold | None = None
    log_above: float | None = None


@dataclass(frozen=True, kw_only=True)
class Bars(Panel):
    """A share between 0 and 1 in each row, with its text behind it."""

    rows: tuple[LabelRow, ...]


@dataclass(frozen=True, kw_only=True)
class Line:
    """Points (``xs``, ``ys``), NaN where the line is broken, with what the pointer shows.

    ``low`` and ``high`` are the ends of whiskers. ``end`` is written behind the last point, and
    ``mark`` is the x of a point to stress. A ``thin`` line has no points; those at ``hollow`` are
    known without being measured.
    """

    name: str
    colour: str
    xs: Sequence[float]
    ys: Sequence[float]
    hover: Sequence[str]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    end: str = ""
    bold: bool = False
    mark: float | None = None
    thin: bool = False
    hollow: Sequence[bool] = ()


@dataclass(frozen=True)
class Band:
    """The area between two lines over ``xs``, NaN where it is broken, and what it means."""

    xs: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Lines(Panel):
    """Lines over an axis, on a band; ``ticks`` are label by place, where it has not its own."""

    lines: tuple[Line, ...]
    x_range: tuple[float, float]
    band: Band | None = None
    threshold: Threshold | None = None
    marks: tuple[Mark, ...] = ()
    ticks: Ticks = ()


@dataclass(frozen=True, kw_only=True)
class Strip(Panel):
    """A bar for each of many dimensions, ``dims`` (n,) ascending with ``values`` (n,).

    The ``named`` ones are written at their bars, in a colour of their own that ``named_are``
    explains.
    """

    dims: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]
    named: tuple[int, ...]
    named_are: str
    span: Span
    ticks: Ticks = ()


def spread(
    wanted: Sequence[float], widths: Sequence[float], low: float, high: float, apart: float
) -> npt.NDArray[np.float64]:
    """Move centres as little as possible (least squares) until no two labels meet.

    Subtracting from each centre how far it must lie from the first leaves only the order to keep,
    which is an isotonic regression.

    Args:
        wanted: the centres that the labels would have if each were alone, ascending.
        widths: of the labels, in the same unit, as all that follows.
        low: no label begins before this,
        high: and none ends after it, if they fit in between at all.
        apart: the space between neighbours.
    """
    from scipy.optimize import isotonic_regression

    size = np.asarray(widths, dtype=np.float64)
    steps = (size[1:] + size[:-1]) / 2 + apart
    offsets = np.concatenate([[0.0], np.cumsum(steps)])
    first = isotonic_regression(np.asarray(wanted, dtype=np.float64) - offsets).x
    last_start = high - size[-1] / 2 - offsets[-1]
    start = low + size[0] / 2
    centres: npt.NDArray[np.float64] = np.clip(first, start, max(start, last_start)) + offsets
    return centres
