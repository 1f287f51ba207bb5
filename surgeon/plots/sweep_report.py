"""A sweep's report: what its cells did, each among random removals, as tables and figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from surgeon.errors import OutputError
from surgeon.harmless import html
from surgeon.plots.page import chart, check_page, is_page, page, paragraphs, table
from surgeon.plots.sweep_page import draw_figure
from surgeon.scoring.tasks import TASKS
from surgeon.study.figures import MANY_DIMS, Subject, figures, subjects
from surgeon.study.grid import Model
from surgeon.study.names import model_name, path_name, short_names
from surgeon.study.results import ROWS
from surgeon.study.rows import Failure, Measurement, Rows, read_rows
from surgeon.surgery.staging import replace_file

_STRONGEST = 40  # rows of a table; the folder has them all
_DIMS = 6
_FIGURES = 40  # of one model and task; a page of more is slow to open


def write_sweep_report(folder: Path, path: Path, *, force: bool = False) -> None:
    """Write one self-contained HTML page about the rows of a sweep.

    It draws every figure that the grid makes: dose-response over the number of dims or the factor,
    one dimension at a time for all layers or in each, one layer at a time; with what random
    removals did as a band.

    Raises:
        OutputError: the folder holds no row of a sweep or a damaged one, or the file exists and
            ``force`` is off, or it cannot be written there.
    """
    check_page(path, force=force)
    read = read_rows(folder)
    measured, failed = read.measured, read.failed
    if not measured and not failed:
        raise OutputError(f"{folder / ROWS}: holds no row yet; run the sweep first")
    numbers = iter(range(1_000_000))
    sections = [paragraphs(_summary(read))]
    models = short_names(
        [*(row.model for row in measured), *(row.model for row in failed)], model_name
    )
    found = subjects(measured)
    headings = short_names(found, lambda subject, parts: _heading(subject, models, parts))
    for subject, rows in found.items():
        sections.append(f"<h2>{html(headings[subject])}</h2>")
        sections.extend(_drawn(rows, subject, numbers))
        sections.append(_strongest(rows))
    if failed:
        sections += ["<h2>Cells that failed</h2>", _failures(failed, models)]
    whole = page(f"Sweep {folder.resolve().name}", "\n".join(sections))
    replace_file(path, whole, is_page if force else None)


def _summary(read: Rows) -> list[str]:
    measured, failed = read.measured, read.failed
    verdicts = Counter(row.verdict for row in measured)
    told = ", ".join(f"{count:,} {verdict}" for verdict, count in verdicts.most_common())
    counted = [f"{len(measured):,} cells measured{': ' if told else ''}{told}"]
    counted += [f"{len(failed):,} failed"] if failed else []
    counted += [f"{read.others:,} of another grid are left out"] if read.others else []
    lines = [f"{'; '.join(counted)}."]
    if not measured:
        return lines
    seeds = {row.seed for row in measured}
    drawn = (
        f"A point or a bar is the mean over {len(seeds)} seeds, and whiskers hold the 95% interval "
        "of every seed"
        if len(seeds) > 1
        else "Whiskers are its 95% interval"
    )
    return [
        *lines,
        (
            f"A change is patched − baseline; more is worse. {drawn}. The grey band is "
            "what random removals of as many dimensions do: the range of the controls"
            f"{' over all seeds' if len(seeds) > 1 else ''} or, of {MANY_DIMS} single dimensions "
            "and more, the middle 95% of the sweep's own."
        ),
    ]


def _heading(subject: Subject, models: Mapping[Model, str], parts: int) -> str:
    data = f" on {path_name(subject.data, parts)}" if subject.data else ""
    masked = f", {subject.mask_rate:.4g} of it masked" if subject.mask_rate is not None else ""
    # Nobody wonders about the number of controls unless nothing else differs.
    controls = f", {subject.controls} controls" if subject.controls and parts > 1 else ""
    return f"{models[subject.model]}: {subject.task}{data}{masked}{controls}"


def _drawn(rows: Sequence[Measurement], subject: Subject, numbers: Iterator[int]) -> Iterator[str]:
    found, task = figures(rows), TASKS.get(subject.task)
    what = f"{subject.metric} ({task.unit})" if task else subject.metric
    for figure in found[:_FIGURES]:
        number = next(numbers)
        yield f"<h3>{html(figure.title)}</h3>"
        yield chart(draw_figure(figure, what), f"figure-{number}", first=number == 0)
    if (left := len(found) - _FIGURES) > 0:
        yield f"<p>and {left} more figures of one selection in fewer layers or sites</p>"


def _strongest(rows: Sequence[Measurement]) -> str:
    ordered = sorted(rows, key=lambda row: -abs(row.delta))
    metric = ordered[0].metric
    heads = ["dims", "operation", "layers", "seed", "verdict", metric, "change", "95% interval",
             "random removals"]  # fmt: skip
    cells = [
        [
            _dims(row),
            row.operation + (f" by {row.factor:g}" if row.factor is not None else ""),
            "all" if row.layers is None else ", ".join(map(str, row.layers)),
            str(row.seed or 0),
            row.verdict,
            f"{row.baseline + row.delta:.4g}".replace("-", "−"),
            _signed(row.delta),
            " to ".join(map(_signed, row.ci95)),
            " to ".join(map(_signed, row.control_range)),
        ]
        for row in ordered[:_STRONGEST]
    ]
    left = len(ordered) - _STRONGEST
    note = f"<p>and {left:,} cells that changed it less, in {ROWS}</p>" if left > 0 else ""
    return table(heads, cells, numbers=4) + note


def _signed(change: float) -> str:
    return f"{change:+.4g}".replace("-", "−")


def _dims(row: Measurement) -> str:
    more = ", …" if len(row.dims) > _DIMS else ""
    return ", ".join(map(str, row.dims[:_DIMS])) + more


def _failures(failed: Sequence[Failure], models: Mapping[Model, str]) -> str:
    counts = Counter((models[f.model], f.error) for f in failed)
    rows = [[model, error, f"{count:,}"] for (model, error), count in counts.most_common()]
    return table(["model", "error", "cells"], rows[:_STRONGEST], numbers=1)
