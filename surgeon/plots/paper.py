"""A figure laid out in inches from its top left corner, in one style."""

from __future__ import annotations

import io
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from surgeon.harmless import plain
from surgeon.plots.content import INK, QUIET

DPI = 200

_STYLE = {
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.linewidth": 0.6,
    "font.family": "DejaVu Sans",  # comes with matplotlib: every machine draws the same
    "font.size": 9,
    "svg.hashsalt": "surgeon",  # the same ranking gives the same bytes
    "text.color": INK,
    "text.parse_math": False,  # a model may have a $ in its name
    "xtick.color": QUIET,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.color": QUIET,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 8.5,
}

_UNDATED: dict[str, dict[str, Any]] = {
    "png": {},
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
}


def own_style() -> AbstractContextManager[None]:
    """Draw by this module's style, whatever the user's matplotlibrc says."""
    styled: AbstractContextManager[None] = style.context(["default", _STYLE])
    return styled


def saved(figure: Figure, form: str) -> bytes:
    """Return a figure as the bytes of a file of the ``form`` "png", "svg" or "pdf"."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form, dpi=DPI, metadata=_UNDATED[form])
    return buffer.getvalue()


@dataclass(frozen=True)
class Paper:
    """A figure of ``width`` × ``height`` inches; positions count from its top left corner."""

    figure: Figure
    width: float
    height: float

    @classmethod
    def blank(cls, width: float, height: float) -> Paper:
        """Make an empty one that can measure texts."""
        figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
        FigureCanvasAgg(figure)
        return cls(figure, width, height)

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Add axes of this size."""
        bottom = (self.height - top - height) / self.height
        return self.figure.add_axes(
            (left / self.width, bottom, width / self.width, height / self.height)
        )

    def text(self, left: float, top: float, words: str, **font: Any) -> Text:
        """Write a line that hangs from ``top``."""
        x, y = left / self.width, 1 - top / self.height
        return self.figure.text(x, y, plain(words), va="top", **font)
