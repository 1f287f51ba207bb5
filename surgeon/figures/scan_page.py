"""The picture of a ranking as a page to explore: HTML that loads nothing, by plotly."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from surgeon.figures import content
from surgeon.figures import page as page_evidence
from surgeon.figures.content import spread
from surgeon.figures.page import (
    FONT,
    chart,
    page,
    paragraphs,
)
from surgeon.ranking import Ranking, ZScores

_LAYER, _LEAST, _MOST = 17, 120, 460  # pixels of a layer on a map, and of a map
_ROW, _TOP, _BETWEEN, _BOTTOM = 25, 90, 80, 60
_ABOVE_NAMES = 36
_MAP, _DIGIT = 850, 9  # pixels of the narrowest map, and of a digit


def render(ranking: Ranking, zscores: ZScores, form: str) -> bytes:  # noqa: ARG001  (only HTML)
    """Return the page as the bytes of a file.

    Its policy forbids the browser to load anything, so that opening it tells nobody.
    """
    figure = chart(draw(ranking, zscores), "picture", first=True)
    lines = paragraphs(content.subtitle(ranking, zscores))
    return page(content.headline(ranking), f"{lines}\n{figure}")


def draw(ranking: Ranking, zscores: ZScores, removed: tuple[int, ...] = ()) -> go.Figure:
    """Lay the maps out one below the other, and the strongest dimensions below them.

    What was ``removed`` from the model is named on both, strong or not; it takes a ranking without
    damages.
    """
    maps = content.panels(zscores)
    size = min(_MOST, max(_LEAST, _LAYER * len(zscores.rows)))
    heights = [size] * len(maps) + [_ROW * len(content.strongest(ranking, removed))]
    total = sum(heights) + _BETWEEN * len(maps)
    dots = content.dots(ranking, zscores).title
    last = "Damage when it is removed" if ranking.measured else dots
    figure = make_subplots(
        rows=len(heights),
        cols=2,
        specs=[[{"colspan": 2}, None]] * len(maps) + [[{}, {}]],
        row_heights=heights,
        column_widths=[0.3, 0.7],
        vertical_spacing=_BETWEEN / total,
        horizontal_spacing=0.05,
        subplot_titles=[f"{name.capitalize()}: z-scores" for name, _ in maps]
        + ["Layers that flag it", last],
    )
    figure.update_annotations(x=0, xanchor="left", font={"size": 15, "weight": "bold"}, yshift=6)
    figure.layout.annotations[0].yshift = _ABOVE_NAMES
    figure.layout.annotations[-1].x = figure.layout[f"xaxis{len(maps) + 2}"].domain[0]
    for row, (name, values) in enumerate(maps, start=1):
        _add_map(figure, row, name, values, zscores.rows)
    figure.update_xaxes(title={"text": "dimension", "standoff": 4}, row=len(maps), col=1)
    _name_dimensions(figure, ranking, removed)
    page_evidence.add_evidence(figure, len(maps) + 1, ranking, zscores, removed)
    figure.update_layout(
        height=total + _TOP + _BOTTOM,
        margin={"l": 70, "r": 20, "t": _TOP, "b": _BOTTOM},
        font=FONT,
        plot_bgcolor="#f5f7f8",
        showlegend=False,
        coloraxis={
            "colorscale": _scale(),
            "cmin": -content.CLIP,
            "cmax": content.CLIP,
            "colorbar": {
                "len": min(size, 220),
                "lenmode": "pixels",
                "y": 1,
                "yanchor": "top",
                "thickness": 14,
                "tickvals": [-6, -3, 0, 3, 6],
                "ticktext": ["≤ −6σ", "−3σ", "0", "+3σ", "≥ +6σ"],
            },
        },
    )
    return figure


def _scale() -> list[list[Any]]:
    span = 2 * content.CLIP
    return [[(score + content.CLIP) / span, colour] for score, colour in content.COLOURS]


def _add_map(
    figure: go.Figure, row: int, name: str, zscores: npt.NDArray[np.float64], rows: tuple[str, ...]
) -> None:
    raster = content.pooled(zscores)
    figure.add_trace(
        go.Heatmap(
            z=raster.values.round(2).astype(np.float32),
            x0=(raster.width - 1) / 2,
            dx=raster.width,
            y=rows,
            customdata=raster.dims.astype(np.int32),
            coloraxis="coloraxis",
            hovertemplate=f"dim %{{customdata}}, layer %{{y}}: {name} %{{z:+.2f}}σ<extra></extra>",
        ),
        row=row,
        col=1,
    )
    figure.update_xaxes(range=[-0.5, zscores.shape[1] - 0.5], ticks="outside", row=row, col=1)
    figure.update_yaxes(
        type="category",
        range=[len(rows) - 0.5, -0.5],
        dtick=content.layer_step(len(rows)),
        title="layer",
        row=row,
        col=1,
    )


def _name_dimensions(figure: go.Figure, ranking: Ranking, removed: tuple[int, ...]) -> None:
    """Write the named dimensions above the first map, moved apart on the narrowest page."""
    dims = sorted(content.named(ranking, removed))
    marked = {*ranking.outliers, *removed}
    wanted = [dim * _MAP / ranking.hidden_size for dim in dims]
    widths = [_DIGIT * len(str(dim)) for dim in dims]
    for dim, own, x in zip(dims, wanted, spread(wanted, widths, 0, _MAP, 6), strict=True):
        move, colour = x - own, content.colour(dim, ranking, removed)
        figure.add_annotation(
            text=f"<b>{dim}</b>" if dim in marked else str(dim),
            x=dim,
            y=-0.5,
            xshift=move,
            yshift=22,
            showarrow=False,
            font={"color": colour, "size": 13},
            row=1,
            col=1,
        )
        figure.add_annotation(  # its line, which ends below all names
            text="",
            x=dim,
            y=-0.5,
            ax=move,
            ay=-13,
            arrowhead=0,
            arrowwidth=1,
            arrowcolor=colour,
            row=1,
            col=1,
        )
