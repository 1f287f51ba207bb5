"""Recipes and sweeps for people: what there is, what a grid costs, what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from surgeon.console.printing import (
    numbers,
    out,
    print_error,
    print_json,
    print_note,
    print_text,
)
from surgeon.progress import duration

if TYPE_CHECKING:
    from surgeon.edit.recipe import Recipe
    from surgeon.edit.recipe_file import Checked
    from surgeon.edit.yaml_file import Problem
    from surgeon.study.atlas import Atlas
    from surgeon.study.cells import Cell, Cost
    from surgeon.study.run import Outlook
    from surgeon.study.sweep import Sweep
    from surgeon.study.trajectories import Trace, Trajectory


_CELLS_SHOWN = 20
_REASONS_SHOWN = 5


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
        table.add_row(name, recipe.model or "any", recipe.summary, verdict or "")
    out().print(table)


def show_checked_recipes(checked: Sequence[Checked], *, json: bool) -> None:
    """Show what is wrong with recipes, a line each on standard error, and which are right."""
    if json:
        print_json({"files": [file.to_json() for file in checked]})
        return
    for file in checked:
        show_problems(file.path, file.problems)
        if not file.problems:
            print_text(f"{file.path}: a valid recipe")


def show_problems(path: Path, problems: Sequence[Problem]) -> None:
    """Show what is wrong with a file, a line each on standard error."""
    for problem in problems:
        print_error(problem.at(path))


def show_grid(cells: Sequence[Cell], cost: Cost, ahead: Outlook, *, json: bool) -> None:
    """Show the cells of a sweep, what they take, and how many are left to do."""
    if json:
        made = [cell.to_json() for cell in cells]
        print_json({"cost": cost.to_json(), "outlook": vars(ahead), "cells": made})
        return
    table = Table(title=f"{cost.cells:,} cells of {cost.models} models")
    for column in ("model", "operation", "task", "data", "seed"):
        table.add_column(column, overflow="fold")
    for cell in (*cells[:_CELLS_SHOWN], *cells[_CELLS_SHOWN:][-1:]):
        if cell is cells[-1] and len(cells) > _CELLS_SHOWN + 1:
            table.add_row("…", f"{len(cells) - _CELLS_SHOWN - 1:,} more", "", "", "")
        settings = cell.evaluation
        task, data = settings.task or "by the head", settings.data or "built in"
        model, data = (Path(name).name for name in (cell.model.model, data))
        table.add_row(model, cell.recipe.summary, task, data, str(settings.seed))
    console = out()
    console.print(table)
    console.print(
        f"About {cost.variants:,} runs of a model over its texts, {cost.texts:,} texts in all. "
        "Nothing was run.",
        soft_wrap=True,
    )
    failed = f", {ahead.failed:,} failed" if ahead.failed else ""
    time = (
        "how long they take, the first that are done will tell"
        if ahead.seconds is None
        else f"about {duration(ahead.seconds)} by the time that these took"
    )
    console.print(
        f"{ahead.done:,} done already{failed}: {ahead.left:,} to run, {time}.", soft_wrap=True
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
        f"{sweep.done} of {sweep.total} cells done{earlier}{failed}. "
        f"rows.jsonl {table}in {sweep.folder}"
    )
    for reason, cells in sweep.reasons[:_REASONS_SHOWN]:
        print_text(f"  {cells:,} failed: {reason}")
    if others := sweep.reasons[_REASONS_SHOWN:]:
        print_text(f"  {sum(cells for _, cells in others):,} failed for other reasons")
    if sweep.others:
        print_note(
            f"rows.jsonl keeps {sweep.others:,} rows of another grid too, which the table and a "
            "report leave out."
        )
    if not sweep.table and sweep.done:
        print_note("For a table too: pip install pyarrow")


_MOST_REASONS = 10


def show_outlook(ahead: Outlook, models: int, *, json: bool) -> None:
    """Show what there is to do for an atlas."""
    if json:
        print_json({"models": models, **vars(ahead)})
        return
    failed = f", {ahead.failed:,} failed" if ahead.failed else ""
    print_text(
        f"{models:,} models, {ahead.done:,} done already{failed}: {ahead.left:,} to scan, in "
        f"{duration(ahead.seconds or 0)} at least by --rate. No requests were sent."
    )


def show_atlas(atlas: Atlas, *, json: bool) -> None:
    """Show how an atlas ended."""
    if json:
        print_json(atlas.to_json())
        return
    earlier = f", {atlas.kept:,} of them by an earlier run" if atlas.kept else ""
    scanned = atlas.total - atlas.kept
    table = Table(
        title=f"{atlas.total:,} models{earlier}",
        caption=f"{atlas.bytes_read:,} bytes in {atlas.seconds:,.1f} s"
        + (f": {atlas.bytes_read / scanned:,.0f} bytes a model" if scanned else ""),
    )
    table.add_column("", overflow="fold")
    table.add_column("models", justify="right")
    table.add_row("scanned", f"{atlas.done:,}")
    table.add_row("  with outliers", f"{atlas.with_outliers:,}")
    table.add_row("failed", f"{atlas.failed:,}")
    for reason, models in atlas.reasons[:_MOST_REASONS]:
        table.add_row(f"  {reason}", f"{models:,}")
    if others := atlas.reasons[_MOST_REASONS:]:
        table.add_row("  other reasons", f"{sum(models for _, models in others):,}")
    out().print(table)
    print_text(f"Atlas: {atlas.output}")
    if atlas.failed:
        print_note("The table says why each failed; --retry tries those again.")


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
            f"No dimension meets the criterion at step {last}, the last: none became an outlier "
            "for good.",
            soft_wrap=True,
        )
    if trace.transient:
        told = [
            f"{one.dim} (step {one.first})"
            if one.first == one.last
            else f"{one.dim} (steps {one.first} to {one.last})"
            for one in trace.transient[:_PASSING_SHOWN]
        ]
        further = len(trace.transient) - len(told)
        more = f" and {further} more" if further else ""
        console.print(
            f"Outliers for a time, but not at the end: {', '.join(told)}{more}", soft_wrap=True
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
    table.add_column("became outlier")
    table.add_column("layers that flag it", justify="right")
    table.add_column(f"{trace.gain_name} z", justify="right")
    if trace.trajectories[0].bias_z is not None:
        table.add_column("bias z", justify="right")
    for trajectory in trace.trajectories[:shown]:
        counts = [score * trace.layers for score in trajectory.score]
        table.add_row(
            str(trajectory.dim),
            _became(trajectory),
            f"{_way(counts, '.0f')} of {trace.layers}",
            _way(trajectory.gain_z, "+.2f"),
            *([] if trajectory.bias_z is None else [_way(trajectory.bias_z, "+.2f")]),
        )
    return table


def _became(trajectory: Trajectory) -> str | Text:
    if trajectory.left_at is None:
        return "no"
    when = "by" if trajectory.last_in_bulk is None else "at"
    return Text(f"{when} step {trajectory.left_at}", "bold red")


def _way(values: tuple[float, ...] | list[float], form: str) -> str:
    return f"{values[0]:{form}} → {values[-1]:{form}}"
