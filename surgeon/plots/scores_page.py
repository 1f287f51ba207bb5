"""The scores of an evaluation as charts: among random removals, and as dims go one by one."""

from __future__ import annotations

import plotly.graph_objects as go

from surgeon.evaluation.result import Evaluation
from surgeon.harmless import in_chart
from surgeon.plots import content
from surgeon.plots.page import BAND, framed

_HEIGHT, _ROW = 150, 48


def draw_scores(evaluation: Evaluation) -> go.Figure:
    """Draw the change of the score: each control, their range, the patched model's interval."""
    figure = go.Figure()
    base = evaluation.baseline.value
    figure.add_vrect(
        x0=evaluation.control_range[0],
        x1=evaluation.control_range[1],
        fillcolor=BAND,
        line_width=0,
        annotation_text="range of random removals",
        annotation_position="top left",
        annotation_font_color=content.QUIET,
    )
    figure.add_trace(
        go.Scatter(
            x=[control.value - base for control in evaluation.controls],
            y=["random removals"] * len(evaluation.controls),
            mode="markers",
            marker={"size": 10, "color": "white", "line": {"color": content.QUIET, "width": 1.4}},
            customdata=[", ".join(map(str, control.dims)) for control in evaluation.controls],
            hovertemplate="without %{customdata}: %{x:+.4g}<extra></extra>",
        )
    )
    low, high = evaluation.ci95
    figure.add_trace(
        go.Scatter(
            x=[evaluation.delta],
            y=["patched"],
            mode="markers",
            marker={"size": 12, "color": content.OUTLIER},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [high - evaluation.delta],
                "arrayminus": [evaluation.delta - low],
                "color": content.OUTLIER,
            },
            hovertemplate="patched: %{x:+.4g}<extra></extra>",
        )
    )
    figure.add_vline(x=0, line={"width": 1, "color": content.INK})
    figure.update_yaxes(range=[-0.6, 1.7])
    figure.update_layout(showlegend=False)
    title = f"change of the {in_chart(evaluation.metric)} ({in_chart(evaluation.unit)})"
    return framed(figure, title, _HEIGHT + 2 * _ROW)


def draw_dose(evaluation: Evaluation) -> go.Figure:
    """Draw the change of the score as the dims are removed one by one, with its interval."""
    labels = ["none", *(f"+ {dose.dims[-1]}" for dose in evaluation.dose)]
    changes = [0.0, *(dose.delta for dose in evaluation.dose)]
    above = [0.0, *(dose.ci95[1] - dose.delta for dose in evaluation.dose)]
    below = [0.0, *(dose.delta - dose.ci95[0] for dose in evaluation.dose)]
    figure = go.Figure(
        go.Scatter(
            x=labels,
            y=changes,
            mode="lines+markers",
            line={"color": content.OUTLIER},
            marker={"size": 9},
            error_y={"type": "data", "symmetric": False, "array": above, "arrayminus": below},
            hovertemplate="%{x}: %{y:+.4g}<extra></extra>",
        )
    )
    figure.add_hrect(
        y0=evaluation.control_range[0],
        y1=evaluation.control_range[1],
        fillcolor=BAND,
        line_width=0,
    )
    figure.update_yaxes(title=f"change of the {in_chart(evaluation.metric)}")
    return framed(figure, "removed", _HEIGHT + 6 * _ROW)
