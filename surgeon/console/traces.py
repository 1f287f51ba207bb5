"""A training run for people: which dimensions left the bulk, when, and how far they went."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from surgeon.console.printing import numbers, out, print_json

if TYPE_CHECKING:
    from surgeon.study.trace_result import Course, Trace

_PASSING_SHOWN = 6


def show_trace(trace: Trace, top: int, *, json: bool) -> None:
    """Show the final outliers and the strongest others, from the first checkpoint to the last."""
    if json:
        print_json(trace.to_json())
        return
    console = out()
    console.print(_table(trace, max(top, len(trace.outliers))))
    first, last = trace.steps[0], trace.steps[-1]
    if trace.outliers:
        console.print(f"Outliers: {numbers(trace.outliers, limit=None)}", soft_wrap=True)
    else:
        console.print(
            f"No dimension meets the criterion at step {last}, the last: none left the bulk for "
            "good.",
            soft_wrap=True,
        )
    if trace.passing:
        told = [
            f"{one.dim} (step {one.first})"
            if one.first == one.last
            else f"{one.dim} (steps {one.first} to {one.last})"
            for one in trace.passing[:_PASSING_SHOWN]
        ]
        further = len(trace.passing) - len(told)
        more = f" and {further} more" if further else ""
        console.print(
            f"Outliers for a time, and none at the end: {', '.join(told)}{more}", soft_wrap=True
        )
    if trace.bulk is not None:
        strength = trace.bulk.strength
        console.print(
            f"The bulk, {trace.bulk.dims} dimensions, from step {first} to {last}: median "
            f"{_way(strength.median, '.2f')}σ, 99th percentile {_way(strength.p99, '.2f')}σ.",
            soft_wrap=True,
        )


def _table(trace: Trace, shown: int) -> Table:
    steps = trace.steps
    table = Table(
        title=(
            f"{trace.name}: {trace.architecture}, {trace.layers} layers, {trace.hidden_size} "
            f"dimensions; {len(steps)} checkpoints, steps {steps[0]} to {steps[-1]}"
        ),
        caption=f"{trace.evidence}: {trace.criterion}; means over layers, first → last",
    )
    table.add_column("dim", justify="right")
    table.add_column("left the bulk")
    table.add_column("layers that flag it", justify="right")
    table.add_column(f"{trace.gain_name} z", justify="right")
    if trace.courses[0].bias_z is not None:
        table.add_column("bias z", justify="right")
    for course in trace.courses[:shown]:
        counts = [score * trace.layers for score in course.score]
        table.add_row(
            str(course.dim),
            _left(course),
            f"{_way(counts, '.0f')} of {trace.layers}",
            _way(course.gain_z, "+.2f"),
            *([] if course.bias_z is None else [_way(course.bias_z, "+.2f")]),
        )
    return table


def _left(course: Course) -> str | Text:
    if course.left_at is None:
        return "no"
    when = "by" if course.last_in_bulk is None else "at"
    return Text(f"{when} step {course.left_at}", "bold red")


def _way(values: tuple[float, ...] | list[float], form: str) -> str:
    return f"{values[0]:{form}} → {values[-1]:{form}}"
