"""An artifact's report: what was edited, where it lies among all dimensions, and what it did."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator, Mapping
from math import isfinite
from pathlib import Path

from surgeon.edit.changes import Edit
from surgeon.edit.files import hash_file
from surgeon.edit.recipe import Recipe, recipe_from_json
from surgeon.edit.record import Record, inside, read_record
from surgeon.edit.restore import open_source
from surgeon.errors import EvaluationError
from surgeon.evaluation.notes import explain, explain_cost, name_verdict, tabulate
from surgeon.evaluation.result import Evaluation, Score, read_evaluation, read_evaluations
from surgeon.figures.page import check_page, paragraphs, table, write_page
from surgeon.figures.paper import embedded
from surgeon.figures.picture import OUTLIER, QUIET, Band, Dots, LabelRow, Line, Lines, Picture, Span
from surgeon.figures.scan import draw_ranking, standing
from surgeon.harmless import from_to, html
from surgeon.progress import Progress, silent
from surgeon.ranking import MEASURED, find_detector, rank_by_layernorm, read_zscores
from surgeon.tasks.registry import TASKS
from surgeon.tasks.task import INVERTED, MARGIN
from surgeon.text import BUILT_IN

# What ``patch`` is told beside the dims.
_OPTIONS = ("mode", "factor", "params", "layers", "sites")
_EDITED = {"zero": "without {}", "mean": "with {} at the mean", "scale": "with {} scaled"}
_NARROW = 4.8  # inches of a chart that a narrow screen shows whole
_EDITS = 24  # rows of the table; the record has them all


def write_report(
    artifact: str | Path, path: str | Path, *, force: bool = False, progress: Progress = silent
) -> None:
    """Write one self-contained HTML page about an artifact that was evaluated.

    ``force`` replaces such a page, and ``progress`` is called with each file that is hashed for it.

    Raises:
        CheckpointError: the directory is no artifact.
        EvaluationError: it was not evaluated, or an evaluation of it is damaged.
        OutputError: the file exists and ``force`` is off, or cannot be written there.
    """
    artifact, path = Path(artifact), Path(path)
    check_page(path, force=force)
    record, evaluation = read_record(artifact), read_evaluation(artifact)
    if evaluation is None:
        raise EvaluationError(f"{artifact}: was not evaluated yet; {record.to_evaluate}")
    source = open_source(artifact)
    ranking, zscores = rank_by_layernorm(source), read_zscores(source)
    scan = draw_ranking(ranking, zscores, record.dims)
    sections = [
        paragraphs(_summary(record)),
        *_damages(record),
        f'<p class="verdict"><b>{name_verdict(evaluation)}</b>: {html(explain(evaluation))}</p>',
        "<h2>What it did</h2>",
        embedded(draw_scores(evaluation)),
        _scores(evaluation),
        *([embedded(draw_dose(evaluation))] if evaluation.dose else []),
        *_quantized(evaluation),
        *(["<h2>Blanks filled in</h2>", _blanks(evaluation)] if evaluation.fill_ins else []),
        "<h2>What was edited</h2>",
        _edits(record),
        "<h2>The source by its weights</h2>",
        paragraphs([*scan.words, standing(ranking, record.dims)]),
        embedded(scan),
        "<h2>How it was measured</h2>",
        paragraphs(_conditions(evaluation)),
        "<h2>All that was measured</h2>",
        table(*tabulate(read_evaluations(artifact))),
        "<h2>Commands</h2>",
        *(f"<pre>{html(command)}</pre>" for command in _commands(record, evaluation)),
        "<h2>Files</h2>",
        _files(artifact, record, progress),
    ]
    write_page(path, _title(record), sections, force=force)


def _title(record: Record) -> str:
    dims = ", ".join(map(str, record.dims))
    return f"{record.model} {_EDITED[record.recipe['mode']].format(dims)}"


def _summary(record: Record) -> list[str]:
    recipe = record.recipe
    factor = f" by {recipe['factor']:g}" if recipe.get("factor") is not None else ""
    changed = f"{record.parameters_changed:,} of {record.parameters_total:,} parameters changed"
    used, chosen_on = record.ranked_on, []
    if used is not None:
        texts = f"{len(used.lines):,} texts of {used.name}, sha256 {used.sha256[:16]}…"
        chosen_on = [f"Chosen on {texts}."]
    origin = f" from revision {record.revision}" if record.revision else ""
    return [
        f"{record.architecture}; {changed} ({recipe['mode']}{factor}), other bytes as they were.",
        *_choice(record),
        *chosen_on,
        f"Made by surgeon {record.surgeon} on {record.created}{origin}{_with(record.versions)}.",
    ]


def _choice(record: Record) -> list[str]:
    """Say what chose the dimensions, and whether what they do was measured."""
    method, choice = record.recipe.get("method") or MEASURED, record.choice
    if choice:
        return [
            f"The dimensions were chosen by {choice.method}, {choice.basis}: {choice.evidence}.",
            f"What makes an outlier: {choice.criterion}.",
        ]
    if not record.recipe.get("remove_outliers"):
        return []
    # The record of an earlier version names the method alone.
    by = method if find_detector(method).needs_model else "weights"
    how = "measured, by removing each" if method == MEASURED else f"by {by}, not measured"
    return [f"The dimensions were chosen by {method}: {how}."]


def _damages(record: Record) -> list[str]:
    """Return a table of what the removal of each dimension did when they were chosen, if any."""
    if record.choice is None or record.choice.measured is None:
        return []

    def change(value: float | None, interval: tuple[float, float] | None) -> str:
        ends = f" ({from_to(interval, '+.4g')})" if interval else ""
        return "" if value is None else f"{value:+.4g}{ends}"

    rows = [
        [
            str(found.dim),
            change(found.damage, found.interval),
            change(found.added, found.added_interval),
            "" if found.examples is None else f"{found.examples:,}",
        ]
        for found in record.choice.dimensions
    ]
    heads = ["dim", "damage alone (interval)", "beside those before it (interval)", "texts"]
    return [table(heads, rows)]


def _with(versions: Mapping[str, str]) -> str:
    return "".join(f", {name} {version}" for name, version in versions.items())


def _scores(evaluation: Evaluation) -> str:
    def row(name: str, score: Score) -> list[str]:
        return [name, ", ".join(map(str, score.dims)), *evaluation.row(score)]

    controls = sorted(evaluation.controls, key=lambda control: control.value)
    rows = [
        row("baseline", evaluation.baseline),
        row("patched", evaluation.patched),
        *(row("random removal", control) for control in controls),
    ]
    heads = ["variant", "dims", *evaluation.columns]
    return table(heads, rows, numbers=len(evaluation.columns))


def _quantized(evaluation: Evaluation) -> Iterator[str]:
    """Yield the section about another form, if the evaluation has one."""
    quantized = evaluation.quantized
    if quantized is not None:
        verdict = name_verdict(quantized.evaluation)
        yield f"<h2>In {quantized.form}</h2>"
        yield paragraphs([f"{verdict}: {explain(quantized.evaluation)}", explain_cost(quantized)])
        yield _scores(quantized.evaluation)


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

    rows = [[edit.tensor, *values(edit)] for edit in record.edits]
    more = "tensors, in surgeon/record.json"
    return table(["tensor", "before", "after"], rows, most=_EDITS, more=more)


def _commands(record: Record, evaluation: Evaluation) -> list[str]:
    """Return what makes the artifact, its last evaluation and its source again."""
    done, usual = recipe_from_json(record.recipe, "record"), Recipe(dims=record.dims)
    changed = (name for name in _OPTIONS if getattr(done, name) != getattr(usual, name))
    recipe = {
        "revision": record.revision,
        "sites_pattern": record.sites_pattern,
        "dims": record.dims,
        **{name: getattr(done, name) for name in changed},
    }
    builtin = evaluation.dataset.name == BUILT_IN
    task, quantized = TASKS.get(evaluation.task), evaluation.quantized
    own_metric = task is not None and evaluation.metric == task.metric
    asked = {
        "task": evaluation.task,
        "metric": None if own_metric else evaluation.metric.removeprefix(INVERTED),
        "margin": None if evaluation.margin in (0, MARGIN) else evaluation.margin,
        "seed": evaluation.seed,
        "controls": len(evaluation.controls),
        **evaluation.options,
        "data": None if builtin else evaluation.dataset.name,
        "all": builtin and not evaluation.until_certain,
        "until_certain": evaluation.until_certain and not builtin,
        "dose": bool(evaluation.dose),
        "quantize": quantized and quantized.form,
    }
    return [
        shlex.join(["surgeon", "patch", record.model, *_as_options(recipe), "-o", "out"]),
        shlex.join(["surgeon", "eval", "out", *_as_options(asked)]),
        "surgeon restore out -o source",
    ]


def _as_options(settings: Mapping[str, object]) -> Iterator[str]:
    for name, value in settings.items():
        if value is None or value is False:
            continue
        yield f"--{name.replace('_', '-')}"
        if value is not True:
            yield ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _files(artifact: Path, record: Record, progress: Progress) -> str:
    """Return a table of the files that the record lists, with two hashes of what they hold now."""
    rows = []
    for number, (name, change) in enumerate(record.files.items()):
        progress(f"hashing {name}", number, len(record.files))
        path = artifact / inside(name)
        now = hash_file(path)  # which refuses what is no regular file
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        same = "as recorded" if now == change.after else "not as recorded"
        rows.append([name, f"{now.size:,}", f"{now.blake3[:16]}…, {same}", sha256])
    return table(["file", "bytes", "BLAKE3", "SHA-256"], rows)


def _conditions(evaluation: Evaluation) -> list[str]:
    data = evaluation.dataset
    size = f"{data.examples:,} {data.unit} ({data.tokens:,} tokens) of {data.name}"
    what = f"{evaluation.title}: {evaluation.metric}, {evaluation.unit}"
    stopped = ", which settled the verdict" if evaluation.stopped_after is not None else ""
    damage, worst = max(
        zip(evaluation.damages, evaluation.controls, strict=True), key=lambda p: p[0]
    )
    dims = ", ".join(map(str, worst.dims))
    lines = [
        f"{what}, on {size}{stopped}, sha256 {data.sha256[:16]}…; seed {evaluation.seed}.",
        f"The worst of {len(evaluation.controls)} random removals, of {dims}: {damage:+.4g}.",
        f"{', '.join(evaluation.providers)}{_with(evaluation.versions)}.",
    ]
    return lines + [f"Note: {warning}." for warning in evaluation.warnings]


def draw_scores(evaluation: Evaluation) -> Picture:
    """Describe the change of the score: the patched model's, and each random removal's."""
    damages = evaluation.damages
    ours, filled, ci95 = [evaluation.delta], [True], evaluation.ci95
    patched = LabelRow("patched", OUTLIER, bold=False, values=ours, filled=filled, interval=ci95)
    hollow = [False] * len(damages)
    random = LabelRow("random removals", QUIET, bold=False, values=damages, filled=hollow)
    panel = Dots(
        x_title=f"change of the {evaluation.metric}\n{evaluation.unit}",
        y_title="variant",
        rows=(patched, random),
        span=Span(*evaluation.control_range, "range of random removals"),
    )
    headline = f"Change of the {evaluation.metric} beside those of random removals"
    return Picture(headline, (), ((panel,),), width=_NARROW)


def draw_dose(evaluation: Evaluation) -> Picture:
    """Describe the change of the score as the dims are removed one by one, with its interval."""
    doses = evaluation.dose
    labels = ["none", *(f"+ {dose.dims[-1]}" for dose in doses)]
    ends = (-0.3, len(doses) + 0.3)
    low, high = evaluation.control_range
    line = Line(
        name="these dimensions",
        colour=OUTLIER,
        xs=list(range(len(labels))),
        ys=[0.0, *(dose.delta for dose in doses)],
        hover=(),
        low=[0.0, *(dose.ci95[0] for dose in doses)],
        high=[0.0, *(dose.ci95[1] for dose in doses)],
    )
    panel = Lines(
        x_title="removed",
        y_title=f"change of the {evaluation.metric}",
        lines=(line,),
        x_range=ends,
        band=Band(ends, (low, low), (high, high), "range of random removals"),
        ticks=tuple(enumerate(labels)),
    )
    headline = f"Change of the {evaluation.metric} as the dimensions are removed one by one"
    return Picture(headline, (), ((panel,),), width=max(_NARROW, 0.6 * len(labels)))
