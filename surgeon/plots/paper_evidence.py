"""The strongest dimensions on paper: how far out, flagged by how many layers, and the damage."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator, PercentFormatter

from surgeon.outliers import ByLayer, Dimension, Measured, Ranking, ZScores
from surgeon.plots import content
from surgeon.plots.paper import Paper

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
