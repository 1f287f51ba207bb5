"""A figure laid out in inches from its top left corner, in one style."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, NullLocator, PercentFormatter

from surgeon.figures import content
from surgeon.figures.content import INK, QUIET, spread
from surgeon.harmless import plain
from surgeon.ranking import (
    ByLayer,
    Dimension,
    Measured,
    Ranking,
    ZScores,
)

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


_ROW = 0.235  # inches of height
_NAME, _AXIS = 0.42, 0.75
_BETWEEN = 0.35
_DOTS, _SHARE, _DAMAGE = 4.2, 2.2, 5.0  # widths relative to each other
_LABELS = 0.75  # of the values to the right of the damage
_FEW = 16  # layers whose dots can be large


def height(ranking: Ranking) -> float:
    """Return how many inches the panels take."""
    return _NAME + _ROW * len(content.strongest(ranking)) + _AXIS


def draw_evidence(
    paper: Paper, ranking: Ranking, zscores: ZScores, left: float, top: float, width: float
) -> None:
    """Draw the panels side by side, the strongest dimension on top of each."""
    shown = content.strongest(ranking)
    parts = [_DOTS, _SHARE] + ([_DAMAGE] if ranking.measured else [])
    free = width - _BETWEEN * (len(parts) - 1) - (_LABELS if ranking.measured else 0)
    panels = []
    for part in parts:
        size = free * part / sum(parts)
        panels.append(paper.axes(left, top + _NAME, size, _ROW * len(shown)))
        left += size + _BETWEEN
    for panel in panels:
        _rows(panel, len(shown))
    outliers = set(ranking.outliers)
    _name_rows(panels[0], shown, outliers)
    _draw_dots(panels[0], shown, content.dots(ranking, zscores), outliers)
    _draw_shares(panels[1], shown, ranking.layers, outliers)
    if ranking.measured:
        _draw_damage(panels[2], shown, ranking.measured, outliers)


def _rows(axes: Axes, count: int) -> None:
    axes.set_ylim(count - 0.5, -0.5)
    axes.set_yticks([])
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    for row in range(0, count, 2):
        axes.axhspan(row - 0.5, row + 0.5, color="#f5f7f8", linewidth=0, zorder=0)


def _title(axes: Axes, words: str) -> None:
    axes.set_title(words, loc="left", fontsize=10, fontweight="bold", pad=17)


def _name_rows(axes: Axes, shown: Sequence[Dimension], outliers: set[int]) -> None:
    axes.set_yticks(range(len(shown)), [str(dimension.dim) for dimension in shown])
    axes.tick_params(axis="y", length=0)
    axes.set_ylabel("dimension, strongest first")
    for label, dimension in zip(axes.get_yticklabels(), shown, strict=True):
        if dimension.dim in outliers:
            label.set(color=content.OUTLIER, fontweight="bold")


def _draw_dots(
    axes: Axes, shown: Sequence[Dimension], judged_by: ByLayer, outliers: set[int]
) -> None:
    _title(axes, judged_by.title)
    threshold = judged_by.threshold
    for row, dimension in enumerate(shown):
        values = judged_by.values[:, dimension.dim]
        flagged = np.isin(np.arange(len(values)), dimension.layers)
        colour = content.OUTLIER if dimension.dim in outliers else content.QUIET
        for chosen, face in ((~flagged, "white"), (flagged, colour)):
            axes.scatter(
                values[chosen],
                np.full(chosen.sum(), row),
                s=20 if len(values) <= _FEW else 12,
                facecolor=face,
                edgecolor=colour,
                linewidth=0.8,
                zorder=3,
            )
    axes.axvline(threshold, color=content.INK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=2)
    if judged_by.ratios:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        most = max(threshold * 1.35, axes.get_xlim()[1])
        axes.set_xlim(-0.015 * most, most)  # a dot at 0 is whole
    axes.annotate(
        f"{threshold:g}{judged_by.unit}",
        (threshold, 1),
        xycoords=axes.get_xaxis_transform(),
        xytext=(0, 1.5),
        textcoords="offset points",
        ha="center",
        fontsize=8,
    )
    axes.set_xlabel(content.dots_axis(judged_by))


def _draw_shares(axes: Axes, shown: Sequence[Dimension], layers: int, outliers: set[int]) -> None:
    _title(axes, "Layers that flag it")
    for row, dimension in enumerate(shown):
        count = len(dimension.layers)
        colour = content.OUTLIER if dimension.dim in outliers else content.QUIET
        axes.barh(row, count / layers, height=0.56, color=colour, zorder=2)
        axes.text(
            count / layers + 0.02,
            row,
            f"{count} of {layers}",
            va="center",
            fontsize=8.5,
            color=content.INK if count else content.QUIET,
        )
    axes.set_xlim(0, 1.45)
    axes.set_xticks([0, 0.5, 1])
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_xlabel("share of layers")


def _draw_damage(
    axes: Axes, shown: Sequence[Dimension], measured: Measured, outliers: set[int]
) -> None:
    _title(axes, "Damage when it is removed")
    axes.axvspan(
        *measured.control_range, color="#cfd8dc", linewidth=0, zorder=1, label="random removals"
    )
    axes.axvline(
        measured.min_damage,
        color=content.INK,
        linewidth=0.8,
        linestyle=(0, (4, 3)),
        zorder=2,
        label="least damage that counts",
    )
    for row, dimension in enumerate(shown):
        if dimension.damage is None:
            _beside(axes, row, "not measured", content.QUIET)
            continue
        found = dimension.dim in outliers
        colour = content.OUTLIER if found else content.QUIET
        if dimension.interval is not None:
            axes.plot(dimension.interval, [row, row], color=colour, linewidth=2.2, zorder=3)
        axes.scatter(dimension.damage, row, s=26, color=colour, zorder=4)
        _beside(axes, row, content.signed(dimension.damage), colour if found else content.INK)
    axes.axvline(0, color=content.QUIET, linewidth=0.6, zorder=1)
    axes.margins(x=0.06)
    scale = ""
    if threshold := content.log_threshold(shown, measured):
        axes.set_xscale("symlog", linthresh=threshold)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        scale = f"; logarithmic above {threshold:g}"
    axes.set_xlabel(f"rise of the {measured.metric}, with its 95% interval\n{measured.unit}{scale}")
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=2,
        frameon=False,
        fontsize=8,
        borderpad=0.1,
        borderaxespad=0.2,
        columnspacing=1.4,
    )


def _beside(axes: Axes, row: int, words: str, colour: str) -> None:
    axes.annotate(
        words,
        (1, row),
        xycoords=axes.get_yaxis_transform(),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        fontsize=8.5,
        color=colour,
        annotation_clip=False,
    )


_APART = 12.0  # pixels between two names


def draw_map(axes: Axes, zscores: npt.NDArray[np.float64], rows: Sequence[str]) -> AxesImage:
    """Draw z-scores of shape (layers, hidden), the first layer on top."""
    raster = content.pooled(zscores)
    layers, columns = raster.values.shape
    image = axes.imshow(
        raster.values,
        aspect="auto",
        interpolation="nearest",
        cmap=_colours(),
        norm=Normalize(-content.CLIP, content.CLIP),
        extent=(-0.5, columns * raster.width - 0.5, layers - 0.5, -0.5),
    )
    axes.set_xlim(-0.5, zscores.shape[1] - 0.5)
    step = content.layer_step(layers)
    axes.set_yticks(range(0, layers, step), rows[::step])
    axes.set_ylabel("layer")
    stacks = [row.rpartition(" ")[0] for row in rows]
    for layer in range(1, layers):
        if stacks[layer] != stacks[layer - 1]:
            axes.axhline(layer - 0.5, color=content.INK, linewidth=0.8)
    return image


def draw_scale(axes: Axes, image: AxesImage) -> None:
    """Draw which colour is which z-score."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    scale = figure.colorbar(image, cax=axes, extend="both", extendfrac=0.04)
    ticks = (-content.CLIP, -content.STEP, 0, content.STEP, content.CLIP)
    scale.set_ticks(list(ticks), labels=["−6σ", "−3σ", "0", "+3σ", "+6σ"])
    axes.tick_params(length=2.5, width=0.6, labelsize=8)


def name_dimensions(strip: Axes, ranking: Ranking) -> list[Text]:
    """Write the named dimensions into the strip above a map, each pointing at its column.

    Args:
        strip: empty axes as wide as the map.
        ranking: its outliers are written in bold; candidates, where there are none, quietly.
    """
    dims = sorted(content.named(ranking))
    found = bool(ranking.outliers)
    colour = content.OUTLIER if found else content.QUIET
    strip.set(xlim=(-0.5, ranking.hidden_size - 0.5), ylim=(0, 1))
    strip.axis("off")
    texts = [
        strip.text(
            dim,
            0.5,
            str(dim),
            ha="center",
            color=colour,
            fontsize=9,
            fontweight="bold" if found else "normal",
        )
        for dim in dims
    ]
    pixel = ranking.hidden_size / strip.get_window_extent().width
    widths = [text.get_window_extent().width * pixel for text in texts]
    low, high = strip.get_xlim()
    for dim, text, x in zip(
        dims, texts, spread(dims, widths, low, high, _APART * pixel), strict=True
    ):
        text.set_x(x)
        strip.plot([x, dim, dim], [0.44, 0.16, 0], color=colour, linewidth=0.7, clip_on=False)
    return texts


def point_at_dimensions(strip: Axes, ranking: Ranking) -> None:
    """Point from the strip above a further map at the columns that the first one names."""
    colour = content.OUTLIER if ranking.outliers else content.QUIET
    strip.set(xlim=(-0.5, ranking.hidden_size - 0.5), ylim=(0, 1))
    strip.axis("off")
    for dim in content.named(ranking):
        strip.plot([dim, dim], [1, 0], color=colour, linewidth=0.7)


def _colours() -> Colormap:
    span = 2 * content.CLIP
    places = [((score + content.CLIP) / span, colour) for score, colour in content.COLOURS]
    colours = LinearSegmentedColormap.from_list("zscores", places, N=1024)
    return colours.with_extremes(bad=content.ABSENT)
