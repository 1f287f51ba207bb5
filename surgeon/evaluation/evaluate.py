"""Artifact → verdict: baseline, patched model and controls on the same examples."""

from __future__ import annotations

import functools
import hashlib
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Literal

import onnxruntime

from surgeon._version import __version__
from surgeon.edit.recipe import expected_verdict, recorded_settings
from surgeon.errors import EvaluationError
from surgeon.evaluation.artifact import Artifact, draw_controls, draw_doses, open_artifact
from surgeon.evaluation.blocks import Compared, compare_in_blocks, partial_of
from surgeon.evaluation.fill_ins import BLANKS, fill_in
from surgeon.evaluation.notes import NO_BLANKS, NOTHING_TO_RESUME, notes_of
from surgeon.evaluation.quantized import check_float32, compare_forms, cost_of, open_quantized
from surgeon.evaluation.result import (
    Change,
    Dose,
    Evaluation,
    FillIn,
    LabelReport,
    Quantized,
    Score,
)
from surgeon.evaluation.runner import OnnxRunner, open_runner
from surgeon.evaluation.session import ProviderName
from surgeon.evaluation.verdict import Finding, find
from surgeon.evaluation.workload import Workload, prepare
from surgeon.model.files import RECORD
from surgeon.progress import Progress, silent
from surgeon.tasks.registry import CONTROLS, TASKS, EvaluationSettings, TaskOptions
from surgeon.tasks.statistics import ALPHA, EARLY, Groups, Interval, chance_of_rank, paired_interval
from surgeon.tasks.task import BASELINE, Data, Floats, Scores, Variant
from surgeon.text import BUILT_IN

_KEPT = 2  # what is kept of an interrupted evaluation: changes with what tasks keep of an example


def evaluate(
    artifact: str | Path,
    *,
    texts: Data | Sequence[str] | str | Path | None = None,
    task: str | None = None,
    metric: str | None = None,
    margin: float | None = None,
    options: TaskOptions | None = None,
    controls: int | None = None,
    seed: int | None = None,
    provider: ProviderName = "auto",
    batch_size: int | None = None,
    dose: bool | None = None,
    until_certain: bool | None = None,
    quantize: Literal["int8"] | None = None,
    resume: bool = False,
    progress: Progress = silent,
) -> Evaluation:
    """Measure what an operation did, against the baseline and random controls.

    The artifact alone is enough: the baseline is its own graph with the excised values put back,
    and each control repeats the operation at as many other dims. All variants see the same
    examples with the same masks. What the artifact's recipe says of its evaluation holds where
    an argument is None.

    Args:
        artifact: a directory that ``patch`` made, with its ONNX half.
        texts: what to measure on: strings, texts or labelled rows, a file of either, or a data set
            of the Hub, as ``hf:org/name`` (None: the task's own sample, or built-in English
            sentences).
        task: what to score (None: what the model's head is for).
        metric: the task's metric that the verdict is about, such as "Matthews" (None: its own).
        margin: the smallest damage that matters, in the metric's unit (None: 0.02; of a squared
            error that share of what the mean scores).
        options: what is set about the task (None: its defaults).
        controls: how many random controls (None: 10).
        seed: of the masks, the controls, shuffled answers and the order of ``until_certain``
            (None: 0).
        provider: where onnxruntime runs.
        batch_size: examples that run at once (None: as many as a budget of tokens holds).
        dose: whether to score the first dims alone too: one, two, and so on.
        until_certain: whether to stop as soon as an interval that is valid at any number of
            examples settles the verdict (None: on the built-in sentences, and with no metric of the
            whole set). The examples then come in random order.
        quantize: score every variant in int8 too, on the CPU, as onnxruntime's dynamic
            quantization makes it (None: not).
        resume: whether to go on where an evaluation with the same settings was interrupted.
        progress: called before each block of examples in each variant.

    Raises:
        EvaluationError: the artifact, the data, a number or the provider does not allow it.
        CheckpointError: the directory is no artifact, or its record is damaged.
        ExportError: its tokenizer is one that transformers reads, and cannot.
        SelectionError: there is no such setting, or task.
        KeyboardInterrupt: it was interrupted; its message says whether ``resume`` goes on.
    """
    if margin is not None:
        margin = float(margin)  # of numpy's, say, which JSON does not know
        if not (math.isfinite(margin) and margin >= 0):
            raise EvaluationError(f"`margin` {margin:g}: give a number of 0 or more")
    given = EvaluationSettings(
        **vars(options or TaskOptions()),
        task=task,
        controls=controls,
        seed=seed,
        dose=dose,
        until_certain=until_certain,
        quantize=quantize,
    )
    artifact = Path(artifact)
    opened = open_artifact(artifact)
    asked = _with_recorded(opened, given)
    if asked.quantize:
        check_float32(opened)
    work = prepare(opened, asked, texts, metric)
    stops_early = _stops_early(asked, work)
    if stops_early:
        work = work.in_random_order()
    count = CONTROLS if asked.controls is None else asked.controls
    patched = Variant("patched", opened.record.dims)
    models = (BASELINE, patched, *draw_controls(opened, count, work.settings.seed))
    variants = (*models, *(draw_doses(opened) if asked.dose else ()))
    runner = open_runner(opened, work.task, provider, batch_size)
    unchanged = opened.record.parameters_changed == 0
    finding_of = functools.partial(find, work, margin=margin, unchanged=unchanged)

    def is_settled(kept: Floats) -> bool:
        found = finding_of(kept[: len(models)], early=True, alpha=EARLY)
        return found.verdict != "inconclusive"

    identity = _identity(artifact, work, variants, shuffled=stops_early)
    partial = partial_of(artifact, work.task.name, identity)
    compared = compare_in_blocks(
        runner,
        work.examples,
        variants,
        partial,
        is_settled=is_settled if stops_early else None,
        resume=resume,
        progress=progress,
    )
    progress("computing the intervals", 0, 0)
    error = EARLY if compared.settled else ALPHA - EARLY if stops_early else ALPHA
    finding = finding_of(compared.kept[: len(models)], early=compared.settled, alpha=error)
    progress("filling in blanks", 0, 0)
    fill_ins = fill_in(runner, patched, work.examples)
    result = _result(opened, work, variants, compared, finding, fill_ins, runner)
    result = replace(result, until_certain=stops_early)
    if asked.quantize:
        quantized = _quantized(opened, work, models, runner, finding_of, progress)
        result = replace(result, quantized=quantized)
    if resume and not compared.resumed:
        result = replace(result, warnings=(*result.warnings, NOTHING_TO_RESUME))
    partial.remove()
    return result


def _with_recorded(artifact: Artifact, asked: EvaluationSettings) -> EvaluationSettings:
    """Fill in what the artifact's recipe says of its evaluation where nothing was asked for.

    Where the recipe is about another task than the one that is scored, it says nothing.
    """
    recorded = recorded_settings(artifact.record.recipe)
    task = recorded.task
    about_another = task is not None and artifact.facts.task not in TASKS[task].heads
    if about_another or asked.task not in (None, task):
        return asked
    return recorded.model_copy(update=asked.given())


def _stops_early(asked: EvaluationSettings, work: Workload) -> bool:
    """Whether to stop once the verdict is settled: as asked, else of the built-in sentences."""
    whole = work.task.metric in work.task.whole
    if asked.until_certain and whole:
        raise EvaluationError(
            f"`until_certain`: the {work.task.metric} is a score of the whole set, for which no "
            "interval is known that is valid at any number of examples; leave it out"
        )
    if asked.until_certain and asked.quantize:
        raise EvaluationError(
            "`until_certain`: a stop once one verdict is settled leaves that of `quantize` open; "
            "leave one out"
        )
    if asked.until_certain is None:
        return not whole and not asked.quantize and work.data.name == BUILT_IN
    return asked.until_certain


def _identity(
    artifact: Path, work: Workload, variants: Sequence[Variant], *, shuffled: bool
) -> dict[str, object]:
    """Return all that the observations depend on, as plain JSON values."""
    return {
        "task": work.task.name,
        "record": hashlib.sha256((artifact / RECORD).read_bytes()).hexdigest(),
        "variants": [list(variant.dims) for variant in variants],
        "settings": repr(work.settings),
        "dataset": vars(work.dataset()),
        "shuffled": shuffled,
        "kept": _KEPT,
        "surgeon": __version__,
        "onnxruntime": onnxruntime.__version__,
    }


def _quantized(
    opened: Artifact,
    work: Workload,
    models: Sequence[Variant],
    runner: OnnxRunner,
    finding_of: Callable[[Floats], Finding],
    progress: Progress,
) -> Quantized:
    """Measure the same in int8, quantized into a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        progress("quantizing", 0, 0)
        quantized = open_quantized(opened, work.task, Path(folder))
        kept, before, after = compare_forms(runner, quantized, work.examples, models, progress)
    compared, cost = Compared(kept, settled=False, resumed=False), cost_of(work, before, after)
    result = _result(opened, work, models, compared, finding_of(kept), (), runner)
    return Quantized("int8", replace(result, providers=("CPUExecutionProvider",)), cost)


def _result(
    opened: Artifact,
    work: Workload,
    variants: Sequence[Variant],
    compared: Compared,
    finding: Finding,
    fill_ins: tuple[FillIn, ...],
    runner: OnnxRunner,
) -> Evaluation:
    task, settings, kept = work.task, work.settings, compared.kept
    seen, last = kept.shape[1], 2 + len(finding.damages)
    texts = work.texts[:seen]
    metrics = [task.scores(one, settings) for one in kept]
    values = [{name: found.value for name, found in metric.items()} for metric in metrics]
    pairs = zip(variants, values, strict=True)
    scores = [Score(variant.dims, value[task.metric], value) for variant, value in pairs]
    warnings = notes_of(opened, work, kept, scores[2:last], finding)
    if settings.block and task.name in BLANKS and not fill_ins:
        warnings = (*warnings, NO_BLANKS)
    return Evaluation(
        model=opened.record.model,
        task=task.name,
        title=task.title,
        metric=task.metric,
        unit=task.unit,
        baseline=scores[0],
        patched=scores[1],
        controls=tuple(scores[2:last]),
        delta=finding.patched.damage,
        ci95=finding.patched.interval,
        control_range=finding.control_range,
        usual_range=finding.usual_range,
        margin=finding.margin,
        needed=finding.needed,
        p_value=chance_of_rank(finding.patched.damage, finding.damages),
        verdict=finding.verdict,
        expected=expected_verdict(opened.record.recipe, task.name),
        seed=settings.seed,
        mask_rate=settings.mask_rate or None,
        # The columns aside, which belong to the data.
        options={name: getattr(settings, name) for name in task.options if hasattr(settings, name)},
        providers=runner.session.providers,
        dataset=work.dataset(seen),
        versions=_versions(),
        warnings=warnings,
        stopped_after=seen if compared.settled else None,
        intervals={
            name: Change(*_change(metrics[0][name], after, texts))
            for name, after in metrics[1].items()
            if name in metrics[0]
        },
        dose=tuple(
            Dose(
                score.dims,
                score.value,
                *_change(metrics[0][task.metric], metric[task.metric], texts),
            )
            for score, metric in zip(scores[last:], metrics[last:], strict=True)
        ),
        fill_ins=fill_ins,
        labels=_by_label(work, kept[0], kept[1]),
    )


def _change(baseline: Scores, scored: Scores, texts: Groups) -> tuple[float, Interval]:
    return scored.value - baseline.value, paired_interval(scored, baseline, texts)


def _by_label(work: Workload, baseline: Floats, patched: Floats) -> tuple[LabelReport, ...]:
    before, after = (work.task.by_label(kept, work.settings) for kept in (baseline, patched))
    reports = []
    for label, numbers in before.items():
        support = int(numbers["support"])
        rows = ({k: v for k, v in row.items() if k != "support"} for row in (numbers, after[label]))
        reports.append(LabelReport(label, support, *rows))
    return tuple(reports)


def _versions() -> dict[str, str]:
    """Return the version of all that the numbers come from."""
    return {
        "surgeon": __version__,
        **{name: metadata.version(name) for name in ("numpy", "scipy", "tokenizers")},
        "onnxruntime": onnxruntime.__version__,
    }
