"""The strongest dimensions on the page: flagged by how many layers, how far out, the damage."""

from __future__ import annotations

from html import escape

import plotly.graph_objects as go

from surgeon.outliers import Measured, Ranking, ZScores
from surgeon.plots import content


def add_evidence(figure: go.Figure, row: int, ranking: Ranking, zscores: ZScores) -> None:
    """Fill both panels of a row: the layers, and the damage or else the distances."""
    _add_shares(figure, row, ranking, zscores.rows)
    if ranking.measured:
        _add_damage(figure, row, ranking, ranking.measured)
    else:
        _add_dots(figure, row, ranking, zscores)
    _name_rows(figure, row, ranking)


def _name_rows(figure: go.Figure, row: int, ranking: Ranking) -> None:
    """Name the rows of both panels of the ranking, outliers in bold."""
    shown = content.strongest(ranking)
    figure.update_yaxes(
        range=[len(shown) - 0.5, -0.5],
        tickvals=list(range(len(shown))),
        ticklabelstandoff=4,
        row=row,
    )
    names = [
        f"<b style='color:{content.OUTLIER}'>{d.dim}</b>" if d.dim in ranking.outliers else d.dim
        for d in shown
    ]
    figure.update_yaxes(ticktext=names, title="dimension, strongest first", row=row, col=1)
    figure.update_yaxes(showticklabels=False, row=row, col=2)


def _colours(ranking: Ranking) -> list[str]:
    outliers = set(ranking.outliers)
    shown = content.strongest(ranking)
    return [content.OUTLIER if d.dim in outliers else content.QUIET for d in shown]


def _add_shares(figure: go.Figure, row: int, ranking: Ranking, labels: tuple[str, ...]) -> None:
    shown = content.strongest(ranking)
    flagged = [", ".join(labels[layer] for layer in d.layers) or "none" for d in shown]
    figure.add_trace(
        go.Bar(
            x=[len(d.layers) / ranking.layers for d in shown],
            y=list(range(len(shown))),
            orientation="h",
            width=0.6,
            marker_color=_colours(ranking),
            text=[f"{len(d.layers)} of {ranking.layers}" for d in shown],
            textposition="outside",
            cliponaxis=False,
            customdata=[[d.dim, layers] for d, layers in zip(shown, flagged, strict=True)],
            hovertemplate="dim %{customdata[0]}, flagged by: %{customdata[1]}<extra></extra>",
        ),
        row=row,
        col=1,
    )
    figure.update_xaxes(
        range=[0, 1.4], tickvals=[0, 0.5, 1], tickformat=".0%", title="share of layers",
        row=row, col=1,
    )  # fmt: skip


def _add_dots(figure: go.Figure, row: int, ranking: Ranking, zscores: ZScores) -> None:
    smaller = zscores.smaller
    for place, (dimension, colour) in enumerate(
        zip(content.strongest(ranking), _colours(ranking), strict=True)
    ):
        layers = range(len(zscores.rows))
        figure.add_trace(
            go.Scatter(
                x=smaller[:, dimension.dim].round(3),
                y=[place] * len(zscores.rows),
                mode="markers",
                marker={
                    "size": 8,
                    "color": [colour if n in dimension.layers else "white" for n in layers],
                    "line": {"color": colour, "width": 1.2},
                },
                customdata=zscores.rows,
                hovertemplate=f"dim {dimension.dim}, layer %{{customdata}}: "
                "%{x:.2f}σ<extra></extra>",
            ),
            row=row,
            col=2,
        )
    figure.add_vline(x=content.STEP, line={"dash": "dash", "width": 1}, row=row, col=2)
    figure.update_xaxes(
        title=content.dots_axis(zscores).replace("\n", "; "), rangemode="tozero", row=row, col=2
    )


def _add_damage(figure: go.Figure, row: int, ranking: Ranking, measured: Measured) -> None:
    for place, (dimension, colour) in enumerate(
        zip(content.strongest(ranking), _colours(ranking), strict=True)
    ):
        if dimension.damage is None:
            told = {"text": ["not measured"], "textfont": {"color": content.QUIET}}
            trace = go.Scatter(x=[0], y=[place], mode="text", textposition="middle right", **told)
            figure.add_trace(trace, row=row, col=2)
            continue
        low, high = dimension.interval or (dimension.damage, dimension.damage)
        figure.add_trace(
            go.Scatter(
                x=[dimension.damage],
                y=[place],
                error_x={
                    "array": [high - dimension.damage],
                    "arrayminus": [dimension.damage - low],
                    "thickness": 2.5,
                    "width": 0,
                },
                mode="markers",
                marker={"size": 9, "color": colour},
                hovertemplate=f"dim {dimension.dim}: {content.signed(dimension.damage)} "
                f"({content.signed(low)} to {content.signed(high)})<extra></extra>",
            ),
            row=row,
            col=2,
        )
    # Shapes are left out of panels that have no trace yet.
    low, high = measured.control_range
    figure.add_vrect(
        x0=low, x1=high, fillcolor="#cfd8dc", line_width=0, layer="below", row=row, col=2
    )
    figure.add_vline(x=measured.min_damage, line={"dash": "dash", "width": 1}, row=row, col=2)
    figure.update_xaxes(
        title=f"rise of the {escape(measured.metric)}, with its 95% interval "
        f"({escape(measured.unit)});<br>grey: random removals; dashed: least damage that counts",
        row=row,
        col=2,
    )
