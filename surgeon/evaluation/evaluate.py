"""Artifact → verdict: baseline, patched model and controls on the same examples."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
import onnxruntime

from surgeon._version import __version__
from surgeon.edit.expectation import (
    EvaluationSettings,
    TaskOptions,
    expected_verdict,
)
from surgeon.errors import EvaluationError
from surgeon.evaluation.artifact import (
    BASELINE,
    Variant,
    draw_controls,
    draw_doses,
    open_artifact,
)
from surgeon.evaluation.fill_ins import BLANKS, fill_in
from surgeon.evaluation.notes import (
    MEAN_POOLED,
    NO_BLANKS,
    NOTHING_TO_RESUME,
    collapse_of,
    describe_data,
    notes_of,
    warnings_of,
)
from surgeon.evaluation.observe import Scorer, observe_in_blocks, partial_of
from surgeon.evaluation.request import (
    check_margin,
    choose_metric,
    choose_task,
    find_data,
    longest_of,
    make_examples,
    make_settings,
    settings_for,
)
from surgeon.evaluation.result import (
    Change,
    Dataset,
    Dose,
    Evaluation,
    LabelReport,
    Score,
)
from surgeon.evaluation.session import ProviderName, open_session
from surgeon.evaluation.verdict import find, number_texts
from surgeon.model.artifact import RECORD
from surgeon.progress import Progress, silent
from surgeon.tasks.examples import Example
from surgeon.tasks.registry import (
    Scores,
    Settings,
    Task,
)
from surgeon.tasks.statistics import (
    Groups,
    chance_of_rank,
    paired_interval,
)
from surgeon.tasks.task import Data, Floats

_CONTROLS = 10
_KEPT = 2  # what is kept of an interrupted evaluation: changes with what tasks keep of an example


def evaluate(
    artifact: Path,
    *,
    texts: Data | str | Path | None = None,
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
        texts: what to measure on: texts or labelled rows, a file of either, or a data set of the
            Hub, as ``hf:org/name`` (None: the task's own sample, or built-in English sentences).
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
            examples settles the verdict. The examples then come in random order.
        resume: whether to go on where an evaluation with the same settings was interrupted.
        progress: told of each batch.

    Raises:
        EvaluationError: the artifact, the data, a number or the provider does not allow it.
        KeyboardInterrupt: it was interrupted; its message says whether ``resume`` goes on.
    """
    _check_batch_size(batch_size)
    check_margin(margin)
    opened = open_artifact(artifact)
    asked = settings_for(
        opened,
        EvaluationSettings(
            **vars(options or TaskOptions()),
            task=task,
            controls=controls,
            seed=seed,
            dose=dose,
            until_certain=until_certain,
        ),
    )
    texts = asked.data if texts is None else texts
    controls = _CONTROLS if asked.controls is None else asked.controls
    seed, until_certain = asked.seed or 0, bool(asked.until_certain)
    chosen = choose_metric(choose_task(opened, asked.task), metric)
    if until_certain and chosen.metric in chosen.whole:
        raise EvaluationError(
            f"--until-certain: the {chosen.metric} is a score of the whole set, for which no "
            "interval is known that is valid at any number of examples; leave it out"
        )
    settings = make_settings(opened, chosen, asked, seed)
    doses = draw_doses(opened) if asked.dose else ()
    patched = Variant("patched", opened.record.dims)
    variants = (BASELINE, patched, *draw_controls(opened, controls, seed), *doses)
    data = find_data(chosen, texts, settings)
    prepared = make_examples(opened, chosen, settings, data)
    examples = list(prepared.examples)
    if until_certain:
        examples = _shuffled(examples, seed)
    session = open_session(
        opened.model_path,
        opened.facts.output,
        tuple(opened.baseline),
        provider,
        further=opened.facts.outputs[1:],
        per_token=chosen.reduce is not None,
        width=settings.vocabulary,
    )
    scorer = Scorer(opened, chosen, session, batch_size)
    dataset = describe_data(data, prepared, examples)
    partial = partial_of(
        artifact, _identity(artifact, chosen, variants, settings, dataset, until_certain)
    )
    longest = longest_of(opened, settings.pooling)
    last = 2 + controls
    unchanged = opened.record.parameters_changed == 0
    found = functools.partial(find, chosen, settings=settings, margin=margin, unchanged=unchanged)

    def look(examples: Sequence[Example], kept: Floats, heaviest: float) -> bool:
        return found(examples, kept[:last], heaviest=heaviest).verdict != "inconclusive"

    observed = observe_in_blocks(
        scorer, variants, examples, partial, progress, look if until_certain else None, resume
    )
    kept, settled, heaviest = observed.kept, observed.settled, observed.heaviest
    seen = examples[: kept.shape[1]]
    metrics = [chosen.scores(one, settings) for one in kept]
    scores = [
        _score(chosen, variant, metric) for variant, metric in zip(variants, metrics, strict=True)
    ]
    progress("computing the intervals", 0, 0)
    finding = found(seen, kept[:last], heaviest=heaviest if until_certain else None)
    if not math.isfinite(finding.patched.interval[0]):
        finding = found(seen, kept[:last])  # to show, not to judge by
    patched_effect, numbers = finding.patched, number_texts(seen)
    progress("filling in blanks", 0, 0)
    fill_ins = fill_in(scorer, patched, examples)
    result = Evaluation(
        model=opened.record.model,
        task=chosen.name,
        title=chosen.title,
        metric=chosen.metric,
        unit=chosen.unit,
        baseline=scores[0],
        patched=scores[1],
        controls=tuple(scores[2:last]),
        delta=patched_effect.damage,
        ci95=patched_effect.interval,
        control_range=finding.control_range,
        p_value=chance_of_rank(patched_effect.damage, finding.damages),
        verdict="inconclusive" if until_certain and not settled else finding.verdict,
        seed=seed,
        mask_rate=settings.mask_rate or None,
        options=_options(chosen, settings),
        providers=session.providers,
        dataset=describe_data(data, prepared, seen),
        versions=_versions(),
        warnings=(
            *warnings_of(opened, data, dataset, scores[2:last], finding, longest),
            *collapse_of(chosen, kept[0], kept[1], settings),
            *notes_of(opened.facts, dataset),
            *((MEAN_POOLED,) if chosen.name == "sts" and settings.pooling is None else ()),
            *prepared.notes,
            *((NO_BLANKS,) if settings.block and chosen.name in BLANKS and not fill_ins else ()),
            *((NOTHING_TO_RESUME,) if resume and not observed.resumed else ()),
        ),
        until_certain=until_certain,
        stopped_after=len(seen) if settled else None,
        usual_range=finding.usual_range,
        margin=finding.margin,
        needed=finding.needed,
        intervals=_changes(metrics[0], metrics[1], numbers),
        dose=tuple(
            _dose(score, metrics[0][chosen.metric], metric[chosen.metric], numbers)
            for score, metric in zip(scores[last:], metrics[last:], strict=True)
        ),
        fill_ins=fill_ins,
        labels=_by_label(chosen, settings, kept[0], kept[1]),
        expected=expected_verdict(opened.record.recipe, chosen.name),
    )
    partial.remove()
    return result


def _versions() -> dict[str, str]:
    """Return the version of all that the numbers come from."""
    return {
        "surgeon": __version__,
        **{name: metadata.version(name) for name in ("numpy", "scipy", "tokenizers")},
        "onnxruntime": onnxruntime.__version__,
    }


def _check_batch_size(batch_size: int | None) -> None:
    if batch_size is not None and batch_size < 1:
        raise EvaluationError(f"--batch-size {batch_size}: give a number of 1 or more")


def _identity(
    artifact: Path,
    task: Task,
    variants: Sequence[Variant],
    settings: Settings,
    dataset: Dataset,
    until_certain: bool,  # noqa: FBT001  (it is one of the values, not a switch)
) -> dict[str, object]:
    """Return all that the observations depend on, as plain JSON values."""
    return {
        "task": task.name,
        "record": hashlib.sha256((artifact / RECORD).read_bytes()).hexdigest(),
        "variants": [list(variant.dims) for variant in variants],
        "settings": repr(settings),
        "dataset": vars(dataset),
        "shuffled": until_certain,
        "kept": _KEPT,
        "surgeon": __version__,
        "onnxruntime": onnxruntime.__version__,
    }


def _shuffled(examples: Sequence[Example], seed: int) -> list[Example]:
    """Return the texts in random order, each with all the examples that it is."""
    texts = number_texts(examples)
    places = np.random.default_rng([seed, len(examples)]).permutation(int(texts.max()) + 1)
    ranks = np.argsort(places)[texts]
    return [examples[number] for number in np.argsort(ranks, kind="stable")]


def _dose(score: Score, baseline: Scores, scored: Scores, texts: Groups) -> Dose:
    interval = paired_interval(scored, baseline, texts)
    return Dose(score.dims, score.value, score.value - baseline.value, interval)


def _score(task: Task, variant: Variant, metrics: Mapping[str, Scores]) -> Score:
    values = {name: scores.value for name, scores in metrics.items()}
    return Score(variant.dims, values[task.metric], values)


def _changes(
    baseline: Mapping[str, Scores], patched: Mapping[str, Scores], texts: Groups
) -> dict[str, Change]:
    """Return the change of every score that both have, with its interval."""
    return {
        name: Change(
            patched[name].value - scores.value, paired_interval(patched[name], scores, texts)
        )
        for name, scores in baseline.items()
        if name in patched
    }


def _by_label(
    task: Task, settings: Settings, baseline: Floats, patched: Floats
) -> tuple[LabelReport, ...]:
    before, after = (task.by_label(observed, settings) for observed in (baseline, patched))
    return tuple(
        LabelReport(
            label, int(row["support"]), _without_support(row), _without_support(after[label])
        )
        for label, row in before.items()
    )


def _without_support(row: Mapping[str, float]) -> Mapping[str, float]:
    return {name: value for name, value in row.items() if name != "support"}


def _options(task: Task, settings: Settings) -> dict[str, object]:
    """Return what the task's options were, the columns aside, which belong to the data."""
    return {name: getattr(settings, name) for name in task.options if hasattr(settings, name)}
