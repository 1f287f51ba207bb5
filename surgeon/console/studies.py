"""Recipes and sweeps for people: what there is, what a grid costs, what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from surgeon.console.printing import (
    out,
    print_error,
    print_json,
    print_note,
    print_text,
)
from surgeon.study.engines import duration

if TYPE_CHECKING:
    from surgeon.study.cells import Cell
    from surgeon.study.cost import Cost
    from surgeon.study.outlook import SweepOutlook
    from surgeon.study.run import Sweep
    from surgeon.surgery.recipe import Recipe
    from surgeon.surgery.recipe_file import Checked
    from surgeon.surgery.yaml_file import Problem

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


def show_grid(cells: Sequence[Cell], cost: Cost, ahead: SweepOutlook, *, json: bool) -> None:
    """Show the cells of a sweep, what they take, and how many are left to do."""
    if json:
        made = [cell.to_json() for cell in cells]
        print_json({"cost": cost.to_json(), "outlook": ahead.to_json(), "cells": made})
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
        f"{sweep.done} of {sweep.cells} cells done{earlier}{failed}. "
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
