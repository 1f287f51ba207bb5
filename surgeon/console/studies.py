"""Recipes, sweeps, atlases and traces for people: what there is, what it costs, what came of it."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from surgeon.console.printing import (
    as_options,
    in_layers,
    numbers,
    print_error,
    print_json,
    print_line,
    print_note,
    print_table,
    print_text,
)
from surgeon.harmless import from_to
from surgeon.progress import duration

if TYPE_CHECKING:
    from surgeon.edit.recipe import Recipe
    from surgeon.edit.recipe_file import Checked, PlacedProblem
    from surgeon.study.atlas import Atlas
    from surgeon.study.grid import Cell, Effort
    from surgeon.study.run import Outcome, Outlook
    from surgeon.study.sweep import Sweep
    from surgeon.study.training_run import Trace, Trajectory


_MAX_CELLS = 20
_MAX_REASONS = 10
_MAX_TRANSIENT = 6


def show_recipes(recipes: Mapping[str, Recipe], *, json: bool) -> None:
    """Show which recipes there are, what each does and what it should show."""
    if json:
        print_json({"recipes": [{"name": n, **r.to_json()} for n, r in recipes.items()]})
        return
    rows = []
    for name, recipe in recipes.items():
        verdict = recipe.expect.verdict if recipe.expect else None
        rows.append((name, recipe.summary, verdict or ""))
    print_table(
        ("name", "does", "expected"),
        rows,
        caption="surgeon recipes show NAME prints one; surgeon patch --recipe NAME does it",
    )


def show_checked_recipes(checked: Sequence[Checked[Recipe]], *, json: bool) -> None:
    """Show what is wrong with recipes, a line each on standard error, and which are right."""
    if json:
        print_json({"files": [file.to_json() for file in checked]})
        return
    for file in checked:
        show_problems(file.path, file.problems)
        if not file.problems:
            print_text(f"{file.path}: a valid recipe")


def show_problems(path: Path, problems: Sequence[PlacedProblem]) -> None:
    """Show what is wrong with a file, a line each on standard error."""
    for problem in problems:
        print_error(problem.at(path))


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def show_grid(cells: Sequence[Cell], effort: Effort, ahead: Outlook, *, json: bool) -> None:
    """Show the cells of a sweep, what they take, and how many are left to do."""
    if json:
        made = [cell.to_json() for cell in cells]
        print_json({"cost": vars(effort), "outlook": vars(ahead), "cells": made})
        return
    from surgeon.figures.grouping import model_name, short_names

    models = short_names((cell.model for cell in cells), model_name)
    rows = []
    for cell in cells:
        settings = cell.evaluation
        task, data = settings.task or "by the head", Path(settings.data or "built in").name
        rows.append((models[cell.model], cell.recipe.summary, task, data, str(settings.seed)))
    if (more := len(rows) - _MAX_CELLS - 1) > 0:
        rows[_MAX_CELLS:-1] = [("…", f"{more:,} more", "", "", "")]
    print_table(
        ("model", "operation", "task", "data", "seed"),
        rows,
        title=f"{_counted(effort.cells, 'cell')} of {_counted(effort.models, 'model')}",
    )
    print_text(
        f"About {effort.variants:,} runs of a model over its texts, {effort.texts:,} texts in all. "
        "Nothing was run."
    )
    time = (
        "how long they take is known once the first are done"
        if ahead.seconds is None
        else f"about {duration(ahead.seconds)} by the time that these took"
    )
    print_text(f"{_ended(ahead)}: {ahead.left:,} to run, {time}.")


def show_sweep(sweep: Sweep, *, json: bool) -> None:
    """Show how a sweep ended."""
    if json:
        print_json(sweep.to_json())
        return
    failed = f", {sweep.failed:,} failed" if sweep.failed else ""
    earlier = f"; {sweep.kept:,} of them in an earlier run" if sweep.kept else ""
    table = "and rows.parquet " if sweep.table else ""
    print_text(
        f"{_counted(sweep.total, 'cell')}: {sweep.done:,} done{failed}{earlier}. "
        f"rows.jsonl {table}in {sweep.folder}"
    )
    for reason, cells in _reasons(sweep):
        print_text(f"  {cells:,} failed: {reason}")
    if sweep.others:
        print_note(
            f"rows.jsonl keeps {sweep.others:,} rows of another grid too, which the table and a "
            "report leave out."
        )
    if not sweep.table and sweep.done:
        print_note("For a table too: pip install 'norm-surgeon[study]'")
    if sweep.done:
        _show_measured(sweep.folder)


def _show_measured(folder: Path) -> None:
    """Show what a sweep measured, the largest changes first, and how to look at all of it."""
    from surgeon.figures.grouping import subjects
    from surgeon.figures.sweep import edit_in_words
    from surgeon.study.sweep_folder import read_rows

    groups, _ = subjects(read_rows(folder).measured)
    measured = [(name, row) for name, same in groups.items() for row in same]
    measured.sort(key=lambda named: -abs(named[1].delta))
    by_seed = len({row.seed for _, row in measured}) > 1
    rows = [
        (
            name,
            f"{'' if row.selection == 'dims' else f'{row.selection}: '}{numbers(row.dims)}",
            f"{edit_in_words(row)}, {in_layers(row.layers)}",
            *([str(row.seed)] if by_seed else []),
            f"{row.delta:+.4g}",
            from_to(row.ci95, "+.4g"),
            row.verdict,
        )
        for name, row in measured[:_MAX_CELLS]
    ]
    left = len(measured) - len(rows)
    heads = ["measured", "dims", "does", ">change", ">95% interval", "verdict"]
    heads[3:3] = [">seed"] if by_seed else []
    first = int(len(groups) == 1)  # the title says it
    print_table(
        heads[first:],
        [row[first:] for row in rows],
        title=rows[0][0] if first else None,
        caption=f"and {left:,} more, which changed it less" if left > 0 else None,
    )
    warnings = Counter(warning for _, row in measured for warning in row.warnings)
    for warning, count in warnings.most_common(_MAX_REASONS):
        print_note(f"{count:,} of {_counted(len(measured), 'cell')}: {warning}")
    print_line(f"Next: surgeon report {shlex.quote(str(folder))} -o report.html")


def show_outlook(ahead: Outlook, models: int, *, json: bool) -> None:
    """Show what there is to do for an atlas."""
    if json:
        print_json({"models": models, **vars(ahead)})
        return
    print_text(
        f"{_counted(models, 'model')}, {_ended(ahead)}: {ahead.left:,} to scan, in "
        f"{duration(ahead.seconds or 0)} at least by --rate. No requests were sent."
    )


def show_atlas(atlas: Atlas, *, json: bool) -> None:
    """Show how an atlas ended."""
    if json:
        print_json(atlas.to_json())
        return
    from surgeon.ranking.ranking import BY_WEIGHTS

    earlier = f", {atlas.kept:,} of them by an earlier run" if atlas.kept else ""
    scanned = atlas.total - atlas.kept
    each = f": {atlas.bytes_read / scanned:,.0f} bytes a model" if scanned else ""
    counts = {
        "scanned": atlas.done,
        f"  with outliers, {BY_WEIGHTS}": atlas.with_outliers,
        "failed": atlas.failed,
        **{f"  {reason}": models for reason, models in _reasons(atlas)},
    }
    print_table(
        ("", ">models"),
        [(name, f"{count:,}") for name, count in counts.items()],
        title=f"{_counted(atlas.total, 'model')}{earlier}",
        caption=f"{atlas.bytes_read:,} bytes in {atlas.seconds:,.1f} s{each}",
    )
    print_text(f"Atlas: {atlas.output}")
    if atlas.failed:
        print_note("The table says why each failed; --retry tries those again.")


def _ended(ahead: Outlook) -> str:
    failed = f", {ahead.failed:,} failed" if ahead.failed else ""
    return f"{ahead.done:,} done already{failed}"


def _reasons(outcome: Outcome) -> list[tuple[str, int]]:
    """Return why jobs failed and how many for each reason, the rarest together."""
    others = sum(number for _, number in outcome.reasons[_MAX_REASONS:])
    shown = [(as_options(reason), number) for reason, number in outcome.reasons[:_MAX_REASONS]]
    return [*shown, *([("other reasons", others)] if others else [])]


def show_trace(trace: Trace, top: int, *, json: bool) -> None:
    """Show the final outliers and the strongest others, from the first checkpoint to the last."""
    if json:
        print_json(trace.to_json())
        return
    _show_trajectories(trace, trace.trajectories[: max(top, len(trace.outliers))])
    first, last = trace.steps[0], trace.steps[-1]
    if trace.outliers:
        from surgeon.ranking.ranking import BY_WEIGHTS

        print_text(f"Outliers: {numbers(trace.outliers, limit=None)} ({BY_WEIGHTS})")
    else:
        print_text(
            f"No dimension meets the criterion at step {last}, the last: none became an outlier "
            "for good."
        )
    if trace.transient:
        shown = [
            f"{one.dim} (step {one.first})"
            if one.first == one.last
            else f"{one.dim} (steps {one.first} to {one.last})"
            for one in trace.transient[:_MAX_TRANSIENT]
        ]
        further = len(trace.transient) - len(shown)
        more = f" and {further} more" if further else ""
        print_text(f"Outliers for a time, but not at the end: {', '.join(shown)}{more}")
    if trace.bulk is not None:
        strength = trace.bulk.strength
        print_text(
            f"The bulk, {trace.bulk.dims} dimensions, from step {first} to {last}: median "
            f"{_change(strength.median, '.2f')}σ, 99th percentile "
            f"{_change(strength.p99, '.2f')}σ."
        )


def _show_trajectories(trace: Trace, shown: Sequence[Trajectory]) -> None:
    heads = [">dim", "became outlier", ">layers that flag it", f">{trace.gain_name} z"]
    rows = []
    for trajectory in shown:
        counts = [score * trace.layers for score in trajectory.score]
        flagging = f"{_change(counts, '.0f')} of {trace.layers}"
        gain = _change(trajectory.gain_z, "+.2f")
        rows.append([str(trajectory.dim), _became(trajectory), flagging, gain])
        if trajectory.bias_z is not None:
            rows[-1].append(_change(trajectory.bias_z, "+.2f"))
    steps = trace.steps
    print_table(
        [*heads, ">bias z"] if shown[0].bias_z is not None else heads,
        rows,
        title=(
            f"{trace.name}: {trace.architecture}, {trace.layers} layers, {trace.hidden_size} "
            f"dimensions; {len(steps)} checkpoints, steps {steps[0]} to {steps[-1]}"
        ),
        caption=f"{trace.evidence}: {trace.criterion}; means over layers, first → last",
    )


def _became(trajectory: Trajectory) -> str | Text:
    if trajectory.left_at is None:
        return "no"
    when = "by" if trajectory.last_in_bulk is None else "at"
    return Text(f"{when} step {trajectory.left_at}", "bold red")


def _change(values: Sequence[float], form: str) -> str:
    return f"{values[0]:{form}} → {values[-1]:{form}}"
