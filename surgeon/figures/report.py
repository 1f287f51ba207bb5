"""An artifact's report: what was edited, where it lies among all dimensions, and what it did."""

from __future__ import annotations

from math import isfinite
from pathlib import Path

import plotly.graph_objects as go

from surgeon.edit.artifact import open_source
from surgeon.edit.changes import Edit
from surgeon.edit.record import Record, read_record
from surgeon.edit.staging import replace_file
from surgeon.errors import EvaluationError
from surgeon.evaluation.notes import explain
from surgeon.evaluation.result import (
    Evaluation,
    Score,
    read_evaluation,
)
from surgeon.figures import content
from surgeon.figures.page import (
    BAND,
    chart,
    check_page,
    framed,
    is_page,
    page,
    paragraphs,
    table,
)
from surgeon.figures.scan_page import draw
from surgeon.harmless import html, in_chart
from surgeon.ranking import rank_by_layernorm, read_zscores

_EDITS = 24  # rows of the table; the record has them all


def write_report(artifact: Path, path: Path, *, force: bool = False) -> None:
    """Write one self-contained HTML page about an artifact that was evaluated.

    Raises:
        CheckpointError: the directory is no artifact.
        EvaluationError: it was not evaluated, or its ``eval.json`` is damaged.
        OutputError: the file exists and ``force`` is off, or cannot be written there.
    """
    check_page(path, force=force)
    record, evaluation = read_record(artifact), read_evaluation(artifact)
    if evaluation is None:
        raise EvaluationError(f"{artifact}: was not evaluated yet; run surgeon eval first")
    source = open_source(artifact)
    ranking, zscores = rank_by_layernorm(source), read_zscores(source)
    dims = ", ".join(map(str, record.dims))
    sections = [
        paragraphs(_summary(record)),
        f'<p class="verdict"><b>{evaluation.verdict}</b>: {html(explain(evaluation))}</p>',
        "<h2>What it did</h2>",
        chart(draw_scores(evaluation), "scores", first=True),
        _scores(evaluation),
        *([chart(draw_dose(evaluation), "dose", first=False)] if evaluation.dose else []),
        *(["<h2>Blanks filled in</h2>", _blanks(evaluation)] if evaluation.fill_ins else []),
        "<h2>What was edited</h2>",
        _edits(record),
        "<h2>The source by its weights</h2>",
        paragraphs([*content.subtitle(ranking, zscores), content.standing(ranking, record.dims)]),
        chart(draw(ranking, zscores, record.dims), "scan", first=False),
        "<h2>How it was measured</h2>",
        paragraphs(_conditions(evaluation)),
    ]
    replace_file(
        path,
        page(f"{record.model} without {dims}", "\n".join(sections)),
        is_page if force else None,
    )


def _summary(record: Record) -> list[str]:
    recipe = record.recipe
    factor = f" by {recipe['factor']:g}" if recipe.get("factor") is not None else ""
    changed = f"{record.parameters_changed:,} of {record.parameters_total:,} parameters changed"
    origin = f" from revision {record.revision}" if record.revision else ""
    return [
        f"{record.architecture}; {changed} ({recipe['mode']}{factor}), other bytes as they were.",
        f"Made by surgeon {record.surgeon} on {record.created}{origin}.",
    ]


def _scores(evaluation: Evaluation) -> str:
    base = evaluation.baseline.value
    others = [name for name in evaluation.baseline.others if name != evaluation.metric]

    def row(name: str, score: Score) -> list[str]:
        change = "" if score is evaluation.baseline else f"{score.value - base:+.4g}"
        further = [f"{score.others[n]:.4g}" if n in score.others else "" for n in others]
        return [name, ", ".join(map(str, score.dims)), f"{score.value:.4g}", change, *further]

    controls = sorted(evaluation.controls, key=lambda control: control.value)
    rows = [
        row("baseline", evaluation.baseline),
        row("patched", evaluation.patched),
        *(row("random removal", control) for control in controls),
    ]
    heads = ["variant", "dims", evaluation.metric, "change", *others]
    return table(heads, rows, numbers=2 + len(others))


def _blanks(evaluation: Evaluation) -> str:
    rows = [[b.text, b.expected, b.baseline, b.patched] for b in evaluation.fill_ins]
    return table(["text", "expected", "baseline", "patched"], rows)


def _edits(record: Record) -> str:
    def values(edit: Edit) -> list[str]:
        if edit.old.ndim > 1:  # of a weight
            return [f"{edit.scalars:,} scalars", f"{edit.changed:,} changed"]
        return [
            ", ".join(f"{v:.4g}" if isfinite(v) else "—" for v in vs) for vs in (edit.old, edit.new)
        ]

    rows = [[edit.tensor, *values(edit)] for edit in record.edits[:_EDITS]]
    left = len(record.edits) - _EDITS
    note = f"<p>and {left} more tensors, in surgeon/record.json</p>" if left > 0 else ""
    return table(["tensor", "before", "after"], rows) + note


def _conditions(evaluation: Evaluation) -> list[str]:
    data = evaluation.dataset
    versions = ", ".join(f"{name} {version}" for name, version in evaluation.versions.items())
    size = f"{data.examples:,} {data.unit} ({data.tokens:,} tokens) of {data.name}"
    what = f"{evaluation.title}: {evaluation.metric}, {evaluation.unit}"
    lines = [
        f"{what}, on {size}, sha256 {data.sha256[:16]}…; seed {evaluation.seed}.",
        f"{', '.join(evaluation.providers)}; {versions}.",
    ]
    return lines + [f"Note: {warning}." for warning in evaluation.warnings]


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
