"""Artifact → verdict: baseline, patched model and controls on the same examples."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
import onnxruntime

import surgeon
from surgeon.errors import EvaluationError
from surgeon.evaluation.artifact import open_artifact
from surgeon.evaluation.describe import describe_data, warnings_of
from surgeon.evaluation.evidence import evidence_of
from surgeon.evaluation.fill_ins import BLANKS, fill_in
from surgeon.evaluation.in_blocks import observe_in_blocks
from surgeon.evaluation.notes import MEAN_POOLED, NO_BLANKS, NOTHING_TO_RESUME, notes_of
from surgeon.evaluation.observe import Scorer
from surgeon.evaluation.partial import partial_of
from surgeon.evaluation.request import (
    choose_task,
    find_data,
    longest_of,
    make_examples,
    make_settings,
    settings_for,
)
from surgeon.evaluation.result import Dataset, Dose, Evaluation, LabelReport, Score
from surgeon.evaluation.session import ProviderName, open_session
from surgeon.evaluation.variants import BASELINE, Variant, draw_controls, draw_doses
from surgeon.evaluation.verdict import judge
from surgeon.progress import Progress, silent
from surgeon.scoring.statistics import (
    chance_of_rank,
    confidence_sequence,
    control_range,
    paired_interval,
)
from surgeon.scoring.tasks import Scores, Settings, Task
from surgeon.scoring.tasks.task import Data, Floats
from surgeon.surgery.expectation import EvaluationSettings, TaskOptions, expected_verdict
from surgeon.surgery.source_files import RECORD

_CONTROLS = 10


def evaluate(
    artifact: Path,
    *,
    texts: Data | str | Path | None = None,
    task: str | None = None,
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
        options: what is set about the task (None: its defaults).
        controls: how many random controls (None: 10).
        seed: of the masks, the controls, the bootstrap and the order of ``until_certain``
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
    chosen = choose_task(opened, asked.task)
    if until_certain and not chosen.averages:
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
        order = np.random.default_rng([seed, len(examples)]).permutation(len(examples))
        examples = [examples[number] for number in order]
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
    observed = observe_in_blocks(
        scorer, variants, examples, partial, progress, controls, until_certain, resume
    )
    kept, settled = observed.kept, observed.settled
    seen = kept.shape[1]
    metrics = [chosen.score(one, kept[0]) for one in kept]
    scores = [
        _score(chosen, variant, metric, chosen.measure(one, settings))
        for variant, metric, one in zip(variants, metrics, kept, strict=True)
    ]
    longest = longest_of(opened, settings.pooling)
    main = [metric[chosen.metric] for metric in metrics]
    last = 2 + controls
    damages = [control.value - scores[0].value for control in scores[2:last]]
    delta = scores[1].value - scores[0].value
    progress("computing the interval", 0, 0)
    interval = (
        confidence_sequence(main[1], main[0])
        if settled
        else paired_interval(main[1], main[0], seed)
    )
    evidence = evidence_of(chosen, examples[:seen], kept[0])
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
        delta=delta,
        ci95=interval,
        control_range=control_range(damages),
        p_value=chance_of_rank(delta, damages),
        verdict=judge(delta, interval, damages, evidence),
        seed=seed,
        mask_rate=settings.mask_rate or None,
        options=_options(chosen, settings),
        providers=session.providers,
        dataset=describe_data(data, prepared, examples[:seen]),
        versions=_versions(),
        warnings=(
            *warnings_of(
                opened, data, dataset, scores[0], scores[2:last], interval[0], evidence, longest
            ),
            *notes_of(opened.facts, dataset),
            *((MEAN_POOLED,) if chosen.name == "sts" and settings.pooling is None else ()),
            *prepared.notes,
            *((NO_BLANKS,) if settings.block and chosen.name in BLANKS and not fill_ins else ()),
            *((NOTHING_TO_RESUME,) if resume and not observed.resumed else ()),
        ),
        until_certain=until_certain,
        stopped_after=seen if settled else None,
        dose=tuple(
            _dose(score, main[0], scored, seed)
            for score, scored in zip(scores[last:], main[last:], strict=True)
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
        "surgeon": surgeon.__version__,
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
        "surgeon": surgeon.__version__,
        "onnxruntime": onnxruntime.__version__,
    }


def _dose(score: Score, baseline: Scores, scored: Scores, seed: int) -> Dose:
    interval = paired_interval(scored, baseline, seed)
    return Dose(score.dims, score.value, score.value - baseline.value, interval)


def _score(
    task: Task, variant: Variant, metrics: Mapping[str, Scores], measured: Mapping[str, float]
) -> Score:
    values = {name: scores.value for name, scores in metrics.items()}
    others = {**values, **task.derive(values), **measured}
    return Score(variant.dims, values[task.metric], others)


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
