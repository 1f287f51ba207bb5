"""The maps of layers × dimensions on paper, and the names of the dimensions that stand out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.image import AxesImage
from matplotlib.text import Text

from surgeon.outliers import Ranking
from surgeon.plots import content
from surgeon.plots.labels import spread

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
