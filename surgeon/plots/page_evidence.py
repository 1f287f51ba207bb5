"""The strongest dimensions on the page: flagged by how many layers, how far out, the damage."""

from __future__ import annotations

from typing import TypeAlias

import plotly.graph_objects as go

from surgeon.harmless import in_chart
from surgeon.outliers import Measured, Ranking, ZScores
from surgeon.plots import content

Removed: TypeAlias = tuple[int, ...]


def add_evidence(
    figure: go.Figure, row: int, ranking: Ranking, zscores: ZScores, removed: Removed = ()
) -> None:
    """Fill both panels of a row: the layers, and the damage or else what judges each layer."""
    _add_shares(figure, row, ranking, zscores.rows, removed)
    if ranking.measured:
        _add_damage(figure, row, ranking, ranking.measured)
    else:
        _add_dots(figure, row, ranking, zscores, removed)
    _name_rows(figure, row, ranking, removed)


def _name_rows(figure: go.Figure, row: int, ranking: Ranking, removed: Removed) -> None:
    """Name the rows of both panels of the ranking, outliers and what was removed in bold."""
    shown = content.strongest(ranking, removed)
    figure.update_yaxes(
        range=[len(shown) - 0.5, -0.5],
        tickvals=list(range(len(shown))),
        ticklabelstandoff=4,
        row=row,
    )
    marked = {*ranking.outliers, *removed}
    names = [
        f"<b style='color:{content.colour(d.dim, ranking, removed)}'>{d.dim}"
        f"{' removed' if d.dim in removed else ''}</b>"
        if d.dim in marked
        else d.dim
        for d in shown
    ]
    figure.update_yaxes(ticktext=names, title="dimension, strongest first", row=row, col=1)
    figure.update_yaxes(showticklabels=False, row=row, col=2)


def _colours(ranking: Ranking, removed: Removed) -> list[str]:
    shown = content.strongest(ranking, removed)
    return [content.colour(d.dim, ranking, removed) for d in shown]


def _add_shares(
    figure: go.Figure, row: int, ranking: Ranking, labels: tuple[str, ...], removed: Removed
) -> None:
    shown = content.strongest(ranking, removed)
    flagged = [", ".join(labels[layer] for layer in d.layers) or "none" for d in shown]
    figure.add_trace(
        go.Bar(
            x=[len(d.layers) / ranking.layers for d in shown],
            y=list(range(len(shown))),
            orientation="h",
            width=0.6,
            marker_color=_colours(ranking, removed),
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


def _add_dots(
    figure: go.Figure, row: int, ranking: Ranking, zscores: ZScores, removed: Removed
) -> None:
    judged_by = content.dots(ranking, zscores)
    for place, (dimension, colour) in enumerate(
        zip(content.strongest(ranking, removed), _colours(ranking, removed), strict=True)
    ):
        layers = range(len(zscores.rows))
        figure.add_trace(
            go.Scatter(
                x=judged_by.values[:, dimension.dim].round(3),
                y=[place] * len(zscores.rows),
                mode="markers",
                marker={
                    "size": 8,
                    "color": [colour if n in dimension.layers else "white" for n in layers],
                    "line": {"color": colour, "width": 1.2},
                },
                customdata=zscores.rows,
                hovertemplate=f"dim {dimension.dim}, layer %{{customdata}}: "
                f"%{{x:.2f}}{judged_by.unit}<extra></extra>",
            ),
            row=row,
            col=2,
        )
    line = f"dashed: {judged_by.threshold:g}{judged_by.unit}"
    words = f"{content.dots_axis(judged_by)}; {line}".replace("\n", "<br>")
    scale = {"type": "log", "dtick": "D2"} if judged_by.ratios else {"rangemode": "tozero"}
    figure.add_vline(x=judged_by.threshold, line={"dash": "dash", "width": 1}, row=row, col=2)
    figure.update_xaxes(title=words, row=row, col=2, **scale)


def _add_damage(figure: go.Figure, row: int, ranking: Ranking, measured: Measured) -> None:
    for place, (dimension, colour) in enumerate(
        zip(content.strongest(ranking), _colours(ranking, ()), strict=True)
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
        title=f"rise of the {in_chart(measured.metric)}, with its 95% interval "
        f"({in_chart(measured.unit)});<br>grey: random removals; dashed: least damage that counts",
        row=row,
        col=2,
    )
