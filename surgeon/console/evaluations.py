"""What an evaluation found: scores, verdict, dose and blanks."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from surgeon.console.printing import (
    numbers,
    out,
    print_json,
)
from surgeon.harmless import plain

if TYPE_CHECKING:
    from surgeon.evaluation.result import Evaluation


_VERDICT_STYLES = {"degraded": "bold red", "intact": "bold green", "inconclusive": "bold yellow"}


def show_evaluation(evaluation: Evaluation, *, json: bool) -> None:
    """Show the scores side by side, and the verdict in words."""
    if json:
        print_json(evaluation.to_json())
        return
    from surgeon.evaluation.notes import explain

    console = out()
    data = evaluation.dataset
    table = Table(
        title=f"{evaluation.model}: {evaluation.title}",
        caption=(
            f"{evaluation.metric}: {evaluation.unit}; {data.examples} {data.unit}, {data.tokens} "
            f"tokens of {data.name}; {', '.join(evaluation.providers)}"
        ),
    )
    table.add_column("variant")
    table.add_column("dims")
    names = [name for name in evaluation.baseline.others if name != evaluation.metric]
    table.add_column(evaluation.metric, justify="right")
    table.add_column("change", justify="right")
    for name in names:
        table.add_column(name, justify="right")
    base = evaluation.baseline.value
    for label, score in (("baseline", evaluation.baseline), ("patched", evaluation.patched)):
        change = "" if score is evaluation.baseline else f"{score.value - base:+.4g}"
        further = [f"{score.others[name]:.4g}" if name in score.others else "" for name in names]
        table.add_row(label, numbers(score.dims), f"{score.value:.4g}", change, *further)
    _add_controls(table, evaluation, names)
    console.print(table)
    verdict = (evaluation.verdict, _VERDICT_STYLES[evaluation.verdict])
    console.print(Text.assemble(verdict, f": {plain(explain(evaluation))}"), soft_wrap=True)
    if evaluation.expected is not None:
        met = evaluation.verdict == evaluation.expected
        told = "as its recipe expects" if met else f"its recipe expects {evaluation.expected}"
        console.print(f"{evaluation.verdict}: {told}.", soft_wrap=True)
    if evaluation.stopped_after is not None:
        console.print(
            f"Settled after {evaluation.stopped_after} {data.unit}, by an interval that is valid "
            "at any number of them.",
            soft_wrap=True,
        )
    elif evaluation.until_certain:
        console.print(
            f"Not settled: all {data.examples} {data.unit} were used, and an interval that is "
            "valid at any number of them leaves the verdict open.",
            soft_wrap=True,
        )
    for warning in evaluation.warnings:
        console.print(f"Note: {warning}.", style="yellow", soft_wrap=True)
    if evaluation.labels:
        _show_labels(console, evaluation)
    if len(evaluation.intervals) > 1:
        _show_intervals(console, evaluation)
    if evaluation.dose:
        _show_dose(console, evaluation)
    if evaluation.fill_ins:
        _show_fill_ins(console, evaluation)


def _add_controls(table: Table, evaluation: Evaluation, names: list[str]) -> None:
    """Add the mean of the controls and, where there are several, their range."""
    controls, base = evaluation.controls, evaluation.baseline.value
    values = [control.value for control in controls]
    further = [[c.others[name] for c in controls if name in c.others] for name in names]
    mean = fmean(values)
    means = [f"{fmean(column):.4g}" if column else "" for column in further]
    count = len(controls)
    if count == 1:
        dims = numbers(controls[0].dims)
        table.add_row("control", dims, f"{mean:.4g}", f"{mean - base:+.4g}", *means)
        return
    table.add_row(f"mean of {count} controls", "", f"{mean:.4g}", f"{mean - base:+.4g}", *means)
    for label, pick in (("least of them", min), ("most of them", max)):
        control = pick(controls, key=lambda score: score.value)
        numbered = (f"{control.others[n]:.4g}" if n in control.others else "" for n in names)
        value, change = f"{control.value:.4g}", f"{control.value - base:+.4g}"
        table.add_row(label, numbers(control.dims), value, change, *numbered)


def _show_labels(console: Console, evaluation: Evaluation) -> None:
    table = Table(title="label by label: baseline → patched")
    names = list(evaluation.labels[0].baseline)
    for name in ("label", "support", *names):
        table.add_column(name, justify="left" if name == "label" else "right")
    for report in evaluation.labels:
        changes = (f"{report.baseline[n]:.4g} → {report.patched[n]:.4g}" for n in names)
        table.add_row(report.label, str(report.support), *changes)
    console.print(table)


def _show_intervals(console: Console, evaluation: Evaluation) -> None:
    table = Table(title=f"change of every score; the {evaluation.metric} decides")
    for name in ("score", "change", "95% interval"):
        table.add_column(name, justify="left" if name == "score" else "right")
    for name, change in evaluation.intervals.items():
        low, high = change.ci95
        table.add_row(name, f"{change.delta:+.4g}", f"{low:+.4g} to {high:+.4g}")
    console.print(table)


def _show_dose(console: Console, evaluation: Evaluation) -> None:
    table = Table(title=f"dose: {evaluation.metric} as dims are removed one by one")
    for name in ("removed", evaluation.metric, "change", "95% interval"):
        table.add_column(name, justify="left" if name == "removed" else "right")
    for dose in evaluation.dose:
        low, high = dose.ci95
        interval = f"{low:+.4g} to {high:+.4g}"
        table.add_row(numbers(dose.dims), f"{dose.value:.4g}", f"{dose.delta:+.4g}", interval)
    console.print(table)


def _show_fill_ins(console: Console, evaluation: Evaluation) -> None:
    table = Table(title="blanks filled in", show_lines=True)
    for name in ("text", "expected", "baseline", "patched"):
        table.add_column(name, overflow="fold")
    for blank in evaluation.fill_ins:
        cells = (blank.text, blank.expected, blank.baseline, blank.patched)
        table.add_row(*cells)
    console.print(table)
