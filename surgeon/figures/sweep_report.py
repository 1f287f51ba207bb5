"""A sweep's report: what its cells did, each among random removals, as tables and figures."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from surgeon.errors import OutputError
from surgeon.figures.chart import draw, embedded
from surgeon.figures.grouping import subjects
from surgeon.figures.page import check_page, paragraphs, table, write_page
from surgeon.figures.sweep import MANY_DIMS, draw_sweep, edit_in_words
from surgeon.harmless import from_to, html, listed, with_minus
from surgeon.progress import Progress, silent
from surgeon.study.grid import Model
from surgeon.study.sweep_folder import ROWS, Failure, Measurement, Rows, read_rows
from surgeon.tasks.registry import TASKS

_DIMS = 6
_FIGURES = 40  # of one model and task; a page of more is slow to open


def write_sweep_report(
    folder: str | Path, path: str | Path, *, force: bool = False, progress: Progress = silent
) -> None:
    """Write one self-contained HTML page about the rows of a sweep.

    It draws every figure that the grid makes: dose-response over the number of dims or the factor,
    one dimension at a time for all layers or in each, one layer at a time; with what random
    removals did as a band. ``progress`` is called with each model and task.

    Raises:
        OutputError: the folder holds no row of a sweep or a damaged one, or the file exists and
            ``force`` is off, or it cannot be written there.
    """
    folder, path = Path(folder), Path(path)
    check_page(path, force=force)
    read = read_rows(folder)
    measured, failed = read.measured, read.failed
    if not measured and not failed:
        raise OutputError(f"{folder / ROWS}: holds no row yet; run the sweep first")
    numbers = itertools.count()
    sections = [paragraphs(_summary(read))]
    groups, models = subjects(measured, (row.model for row in failed))
    for number, (name, rows) in enumerate(groups.items()):
        progress(f"drawing {name}", number, len(groups))
        sections.append(f"<h2>{html(name)}</h2>")
        sections.extend(_drawn(rows, numbers))
        sections.append(_strongest(rows))
    if failed:
        sections += ["<h2>Cells that failed</h2>", _failures(failed, models)]
    write_page(path, f"Sweep {folder.resolve().name}", sections, force=force)


def _summary(read: Rows) -> list[str]:
    measured, failed = read.measured, read.failed
    verdicts = Counter(row.verdict for row in measured).most_common()
    each = ", ".join(f"{count:,} {verdict}" for verdict, count in verdicts)
    counted = [f"{len(measured):,} cells measured{each and f': {each}'}"]
    counted += [f"{len(failed):,} failed"] if failed else []
    counted += [f"{read.others:,} of another grid are left out"] if read.others else []
    lines = [f"{'; '.join(counted)}."]
    seeds = len({row.seed for row in measured})
    whiskers, over_seeds = "Whiskers are its 95% interval", ""
    if seeds > 1:
        whiskers = f"A point or a bar is the mean over {seeds} seeds, and whiskers hold the 95% "
        whiskers, over_seeds = f"{whiskers}interval of every seed", " over all seeds"
    if measured:
        lines.append(
            f"A change is patched − baseline; more is worse. {whiskers}. The grey band is what "
            f"random removals of as many dimensions do: the range of the controls{over_seeds} or, "
            f"of {MANY_DIMS} single dimensions and more, the middle 95% of the sweep's own."
        )
    return lines


def _drawn(rows: Sequence[Measurement], numbers: Iterator[int]) -> Iterator[str]:
    metric, task = rows[0].metric, TASKS.get(rows[0].task)
    # On two lines: the unit of some metrics is a sentence.
    pictures = draw_sweep(rows, f"{metric}\n({task.unit})" if task else metric)
    for picture in pictures[:_FIGURES]:
        number = next(numbers)
        yield f"<h3>{html(picture.headline)}</h3>"
        yield embedded(draw(picture), f"figure-{number}", first=number == 0)
    if (left := len(pictures) - _FIGURES) > 0:
        yield f"<p>and {left} more figures of one selection in fewer layers or sites</p>"


def _strongest(rows: Sequence[Measurement]) -> str:
    ordered = sorted(rows, key=lambda row: -abs(row.delta))
    metric = ordered[0].metric
    heads = ["dims", "operation", "layers", "seed", "verdict", metric, "change", "95% interval",
             "random removals"]  # fmt: skip
    cells = [
        [
            listed(row.dims, _DIMS),
            edit_in_words(row),
            "all" if row.layers is None else listed(row.layers),
            str(row.seed or 0),
            row.verdict,
            with_minus(f"{row.baseline + row.delta:.4g}"),
            with_minus(f"{row.delta:+.4g}"),
            with_minus(from_to(row.ci95, "+.4g")),
            with_minus(from_to(row.control_range, "+.4g")),
        ]
        for row in ordered
    ]
    return table(heads, cells, numbers=4, more=f"cells that changed it less, in {ROWS}")


def _failures(failed: Sequence[Failure], models: Mapping[Model, str]) -> str:
    counts = Counter((models[f.model], f.error) for f in failed)
    rows = [[model, error, f"{count:,}"] for (model, error), count in counts.most_common()]
    return table(["model", "error", "cells"], rows, numbers=1, more="errors")
