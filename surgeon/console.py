"""The only module that prints: tables and verdicts for people, JSON for scripts.

Results go to standard output, progress and notes to standard error, so that ``--json`` leaves one
document and nothing else on standard output.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from json import dump
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from surgeon.progress import Progress

if TYPE_CHECKING:
    from surgeon.evaluation.result import Evaluation
    from surgeon.outliers import Ranking
    from surgeon.study.cells import Cell
    from surgeon.study.cost import Cost
    from surgeon.study.run import Sweep
    from surgeon.surgery.compare import Comparison
    from surgeon.surgery.plan import Plan
    from surgeon.surgery.recipe import Recipe
    from surgeon.surgery.recipe_file import Checked
    from surgeon.surgery.record import Record
    from surgeon.surgery.verify import Verification

_LAYERS_SHOWN = 12
_CELLS_SHOWN = 20

_VERDICT_STYLES = {"degraded": "bold red", "intact": "bold green", "inconclusive": "bold yellow"}


def _out() -> Console:
    return Console(highlight=False, soft_wrap=False)


def _err() -> Console:
    return Console(stderr=True, highlight=False)


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document to standard output."""
    dump(document, sys.stdout, indent=1, allow_nan=False)
    sys.stdout.write("\n")


def print_error(message: str) -> None:
    """Print one line to standard error; a message never spans more."""
    sys.stderr.write(f"surgeon: {' '.join(message.split())}\n")


def print_note(message: str) -> None:
    """Print something worth knowing to standard error."""
    _err().print(f"[dim]{_escape(message)}[/dim]", soft_wrap=True)


def print_heading(message: str) -> None:
    """Print a line that opens a part of a longer output."""
    _out().print(f"\n[bold]{_escape(message)}[/bold]", soft_wrap=True)


def print_text(message: str) -> None:
    """Print plain text to standard output."""
    _out().print(_escape(message), soft_wrap=True)


@contextlib.contextmanager
def shown_progress() -> Iterator[Progress]:
    """Show long-running steps on a terminal's standard error; elsewhere show nothing."""
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    console = _err()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Bars(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task("starting", total=None)

        def report(step: str, done: int, total: int) -> None:
            bars.update(task, description=step, completed=done, total=total or None)

        yield report


def show_ranking(ranking: Ranking, top: int, *, json: bool) -> None:
    """Show the strongest dimensions, and which of them are outliers."""
    if json:
        print_json(ranking.to_json())
        return
    console = _out()
    table = Table(
        title=f"{ranking.model}: {ranking.architecture}, {ranking.layers} layers, "
        f"{ranking.hidden_size} dimensions",
        caption=f"{ranking.evidence}: {ranking.criterion}",
    )
    table.add_column("dim", justify="right")
    table.add_column("outlier")
    table.add_column("layers that flag it", justify="right")
    table.add_column("which")
    table.add_column("mean σ", justify="right")
    outliers = set(ranking.outliers)
    shown = max(top, len(outliers))
    for dimension in ranking.dimensions[:shown]:
        table.add_row(
            str(dimension.dim),
            "[bold red]yes[/bold red]" if dimension.dim in outliers else "no",
            f"{len(dimension.layers)} of {ranking.layers}",
            _numbers(dimension.layers),
            f"{dimension.strength:.2f}",
        )
    console.print(table)
    if ranking.outliers:
        console.print(f"Outliers: {_numbers(ranking.outliers, limit=None)}", soft_wrap=True)
    else:
        console.print(
            "No dimension meets the criterion. Weights alone are weak evidence: patch some, and "
            "surgeon eval tells what they do.",
            soft_wrap=True,
        )


def show_plan(plan: Plan, *, json: bool) -> None:
    """Show what an operation would do, tensor by tensor."""
    if json:
        print_json(plan.to_json())
        return
    table = Table(title=f"{plan.checkpoint.name}: {', '.join(plan.kinds)}")
    for column in ("tensor", "dims", "old", "new"):
        table.add_column(column, overflow="fold")
    for edit in plan.edits:
        table.add_row(edit.tensor, _numbers(edit.dims), _values(edit.old), _values(edit.new))
    console = _out()
    console.print(table)
    console.print(
        f"{plan.parameters_changed} of {plan.checkpoint.parameters_total:,} parameters would "
        "change. Nothing was written.",
        soft_wrap=True,
    )


def show_record(record: Record, output: Path, *, json: bool) -> None:
    """Show what an operation did."""
    if json:
        print_json(record.summary(output))
        return
    console = _out()
    kinds = ", ".join(sorted({f"{edit.role} {edit.kind}" for edit in record.edits}))
    console.print(
        f"{record.model}: {record.parameters_changed} of {record.parameters_total:,} parameters "
        f"changed at dimensions {_numbers(record.dims)} ({kinds}), all other bytes as they were.",
        soft_wrap=True,
    )
    if record.parameters_changed == 0:
        console.print("[yellow]The operation changed no value.[/yellow]", soft_wrap=True)
    if record.onnx is not None:
        parity = record.onnx["parity"]["largest"]
        console.print(
            f"ONNX: {record.onnx['model']}, within {parity:.1e} of PyTorch.", soft_wrap=True
        )
    if record.converted_from:
        console.print(
            f"{', '.join(record.converted_from)} was a pickle: the artifact has its tensors as "
            f"{', '.join(record.weights)}.",
            soft_wrap=True,
        )
    if record.left_out:
        console.print(
            f"Left out, since they hold the unpatched weights or are no plain files: "
            f"{_escape(', '.join(record.left_out))}",
            soft_wrap=True,
        )
    console.print(f"Artifact: {_escape(str(output))}", soft_wrap=True)


def show_restored(record: Record, output: Path, *, json: bool) -> None:
    """Show what a restore gave back, and what it could not."""
    if json:
        print_json(record.summary(output))
        return
    console = _out()
    console.print(f"{record.model} restored to {_escape(str(output))}", soft_wrap=True)
    if record.converted_from:
        console.print(
            f"{', '.join(record.converted_from)} was a pickle: its tensors are back as "
            f"{', '.join(record.weights)}.",
            soft_wrap=True,
        )
    if record.left_out:
        console.print(
            f"Not in the artifact, so not restored: {', '.join(record.left_out)}", soft_wrap=True
        )


def show_small_patch(plan: Plan, path: Path, size: int, *, json: bool) -> None:
    """Show what a small patch holds."""
    if json:
        print_json({"output": str(path), "bytes": size, **plan.to_json()})
        return
    _out().print(
        f"{_escape(str(path))}: {size:,} bytes, {plan.parameters_changed} scalars of "
        f"{plan.checkpoint.name} at dimensions {_numbers(plan.dims)}; surgeon apply performs it.",
        soft_wrap=True,
    )


def show_recipes(recipes: Mapping[str, Recipe], *, json: bool) -> None:
    """Show which recipes there are, what each does and what it should show."""
    if json:
        print_json({"recipes": [{"name": n, **r.to_json()} for n, r in recipes.items()]})
        return
    table = Table(
        caption="surgeon recipes show NAME prints one; surgeon patch --recipe NAME does it"
    )
    for column in ("name", "for", "does", "expected"):
        table.add_column(column, overflow="fold", no_wrap=column == "name")
    for name, recipe in recipes.items():
        verdict = recipe.expect.verdict if recipe.expect else None
        table.add_row(name, _escape(recipe.model or "any"), _escape(recipe.summary), verdict or "")
    _out().print(table)


def show_checked_recipes(checked: Sequence[Checked], *, json: bool) -> None:
    """Show what is wrong with recipes, a line each on standard error, and which are right."""
    if json:
        print_json({"files": [file.to_json() for file in checked]})
        return
    for file in checked:
        for problem in file.problems:
            print_error(problem.at(file.path))
        if not file.problems:
            print_text(f"{file.path}: a valid recipe")


def show_grid(cells: Sequence[Cell], cost: Cost, *, json: bool) -> None:
    """Show the cells of a sweep, and what they take."""
    if json:
        print_json({"cost": cost.to_json(), "cells": [cell.to_json() for cell in cells]})
        return
    table = Table(title=f"{cost.cells:,} cells of {cost.models} models")
    for column in ("model", "operation", "task", "data", "seed"):
        table.add_column(column, overflow="fold")
    for cell in (*cells[:_CELLS_SHOWN], *cells[_CELLS_SHOWN:][-1:]):
        if cell is cells[-1] and len(cells) > _CELLS_SHOWN + 1:
            table.add_row("…", f"{len(cells) - _CELLS_SHOWN - 1:,} more", "", "", "")
        settings = cell.evaluation
        task, data = settings.task or "by the head", settings.data or "built in"
        where = (_escape(Path(name).name) for name in (cell.model.model, data))
        model, data = where
        table.add_row(model, cell.recipe.summary, task, data, str(settings.seed))
    console = _out()
    console.print(table)
    console.print(
        f"About {cost.variants:,} runs of a model over its texts, {cost.texts:,} texts in all. "
        "Nothing was run.",
        soft_wrap=True,
    )


def show_sweep(sweep: Sweep, *, json: bool) -> None:
    """Show how a sweep ended."""
    if json:
        print_json(sweep.to_json())
        return
    earlier = f", {sweep.kept} of them by an earlier run" if sweep.kept else ""
    failed = f"; {sweep.failed} failed" if sweep.failed else ""
    table = "and rows.parquet " if sweep.table else ""
    print_text(
        f"{sweep.done} of {sweep.cells} cells done{earlier}{failed}. "
        f"rows.jsonl {table}in {sweep.folder}"
    )
    if not sweep.table and sweep.done:
        print_note("For a table too: pip install pyarrow")


def show_comparison(comparison: Comparison, *, json: bool) -> None:
    """Show which tensors differ, where and by how much."""
    if json:
        print_json(comparison.to_json())
        return
    console = _out()
    if comparison.identical:
        console.print(f"Identical: all {comparison.compared} tensors, bit for bit.", soft_wrap=True)
        return
    table = Table(caption=f"{comparison.scalars_changed:,} scalars differ")
    for column in ("tensor", "what", "scalars", "dims"):
        table.add_column(column, overflow="fold")
    for tensor in comparison.tensors:
        dims = "spread" if tensor.dims is None else _numbers(tensor.dims)
        table.add_row(_escape(tensor.name), tensor.reason, f"{tensor.changed:,}", dims)
    console.print(table)


def show_verification(verification: Verification, *, json: bool) -> None:
    """Show every check, and what failed."""
    if json:
        print_json(verification.to_json())
        return
    table = Table(title=verification.model)
    for column in ("check", "", "found"):
        table.add_column(column, overflow="fold")
    for check in verification.checks:
        mark = "[green]ok[/green]" if check.passed else "[bold red]failed[/bold red]"
        table.add_row(_escape(check.name), mark, _escape(check.found))
    _out().print(table)


def show_pushed(artifact: Path, url: str, *, json: bool) -> None:
    """Show where an artifact is now."""
    if json:
        print_json({"artifact": str(artifact), "url": url})
        return
    print_text(f"{artifact} is at {url}")


def show_evaluation(evaluation: Evaluation, *, json: bool) -> None:
    """Show the scores side by side, and the verdict in words."""
    if json:
        print_json(evaluation.to_json())
        return
    console = _out()
    data = evaluation.dataset
    table = Table(
        title=f"{evaluation.model}: {evaluation.title}",
        caption=f"{evaluation.metric}: {evaluation.unit}; {data.examples} texts, {data.tokens} "
        f"tokens of {data.name}; {', '.join(evaluation.providers)}",
    )
    table.add_column("variant")
    table.add_column("dims")
    names = [name for name in evaluation.baseline.others if name != evaluation.metric]
    table.add_column(evaluation.metric, justify="right")
    table.add_column("change", justify="right")
    for name in names:
        table.add_column(name, justify="right")
    base = evaluation.baseline.value
    rows = [("baseline", evaluation.baseline), ("patched", evaluation.patched)]
    controls = sorted(evaluation.controls, key=lambda control: control.value)
    if len(controls) > 2:
        rows.append(("median control", controls[(len(controls) - 1) // 2]))
    rows.append((f"worst of {len(controls)} controls", controls[-1]))
    for label, score in rows:
        change = "" if score is evaluation.baseline else f"{score.value - base:+.4g}"
        further = (f"{score.others[name]:.4g}" if name in score.others else "" for name in names)
        table.add_row(label, _numbers(score.dims), f"{score.value:.4g}", change, *further)
    console.print(table)
    style = _VERDICT_STYLES[evaluation.verdict]
    console.print(
        f"[{style}]{evaluation.verdict}[/{style}]: {_explain(evaluation)}", soft_wrap=True
    )
    if evaluation.expected is not None:
        met = evaluation.verdict == evaluation.expected
        told = "as its recipe expects" if met else f"its recipe expects {evaluation.expected}"
        console.print(f"{evaluation.verdict}: {told}.", soft_wrap=True)
    if evaluation.stopped_after is not None:
        console.print(
            f"Settled after {evaluation.stopped_after} texts, by an interval that is valid at any "
            "number of them.",
            soft_wrap=True,
        )
    for warning in evaluation.warnings:
        console.print(f"[yellow]Note: {_escape(warning)}.[/yellow]", soft_wrap=True)
    if evaluation.dose:
        _show_dose(console, evaluation)
    if evaluation.fill_ins:
        _show_fill_ins(console, evaluation)


def _show_dose(console: Console, evaluation: Evaluation) -> None:
    table = Table(title=f"dose: {evaluation.metric} as dims are removed one by one")
    for name in ("removed", evaluation.metric, "change", "95% interval"):
        table.add_column(name, justify="left" if name == "removed" else "right")
    for dose in evaluation.dose:
        low, high = dose.ci95
        interval = f"{low:+.4g} to {high:+.4g}"
        table.add_row(_numbers(dose.dims), f"{dose.value:.4g}", f"{dose.delta:+.4g}", interval)
    console.print(table)


def _show_fill_ins(console: Console, evaluation: Evaluation) -> None:
    table = Table(title="blanks filled in", show_lines=True)
    for name in ("text", "expected", "baseline", "patched"):
        table.add_column(name, overflow="fold")
    for blank in evaluation.fill_ins:
        cells = (blank.text, blank.expected, blank.baseline, blank.patched)
        table.add_row(*map(_escape, cells))
    console.print(table)


def _explain(evaluation: Evaluation) -> str:
    low, high = evaluation.ci95
    random_low, random_high = evaluation.control_range
    change = (
        f"the {evaluation.metric} changes by {evaluation.delta:+.4g} "
        f"(95% interval {low:+.4g} to {high:+.4g})"
    )
    span = f"{random_low:.4g} to {random_high:.4g}"
    return {
        "degraded": f"{change}, all of it beyond the {span} of random removals.",
        "intact": f"{change}; random removals do {span}.",
        "inconclusive": f"{change} and random removals do {span}; more --data or --controls may "
        "settle it.",
    }[evaluation.verdict]


def _numbers(numbers: tuple[int, ...], limit: int | None = _LAYERS_SHOWN) -> str:
    shown = ", ".join(map(str, numbers[:limit]))
    return f"{shown}, … ({len(numbers)})" if limit and len(numbers) > limit else shown


def _values(values: Any) -> str:
    if values.ndim > 1:
        return f"{values.size} values"
    return ", ".join(f"{float(value):.4g}" for value in values[:_LAYERS_SHOWN])


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
