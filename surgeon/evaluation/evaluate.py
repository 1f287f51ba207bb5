"""Artifact → verdict: baseline, patched model and controls on the same examples."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime

import surgeon
from surgeon.errors import EvaluationError
from surgeon.evaluation.artifact import Artifact, open_artifact
from surgeon.evaluation.fill_ins import fill_in
from surgeon.evaluation.observe import Scorer, observe_all
from surgeon.evaluation.partial import Partial, partial_of
from surgeon.evaluation.result import Dataset, Dose, Evaluation, Score
from surgeon.evaluation.session import ProviderName, open_session
from surgeon.evaluation.variants import BASELINE, Variant, draw_controls, draw_doses
from surgeon.evaluation.verdict import is_settled, judge
from surgeon.progress import Progress, silent
from surgeon.scoring.examples import Encoded, Example, encode
from surgeon.scoring.statistics import (
    chance_of_rank,
    confidence_sequence,
    control_range,
    paired_interval,
)
from surgeon.scoring.tasks import TASKS, Scores, Settings, Task
from surgeon.scoring.tasks.task import Floats
from surgeon.scoring.tokenizer import read_tokenizer
from surgeon.surgery.expectation import expected_verdict
from surgeon.surgery.source_files import RECORD
from surgeon.text import Texts, built_in_sample

_FEW_CONTROLS = 5
_MOST_UNKNOWN = 0.2  # share of unknown tokens from which the data do not fit the model
_BLOCK = 512  # examples between two savings of what was observed
_LOOK = 32  # examples between two looks at whether the verdict is settled


def evaluate(
    artifact: Path,
    *,
    texts: Texts | None = None,
    controls: int = 10,
    seed: int = 0,
    mask_rate: float = 0.15,
    provider: ProviderName = "auto",
    batch_size: int | None = None,
    dose: bool = False,
    until_certain: bool = False,
    resume: bool = False,
    progress: Progress = silent,
) -> Evaluation:
    """Measure what an operation did, against the baseline and random controls.

    The artifact alone is enough: the baseline is its own graph with the excised values put back,
    and each control repeats the operation at as many other dims. All variants see the same
    examples with the same masks.

    Args:
        artifact: a directory that ``patch`` made, with its ONNX half.
        texts: what to measure on (None: the built-in English sentences).
        controls: how many random controls.
        seed: of the masks, the controls, the bootstrap and the order of ``until_certain``.
        mask_rate: the share of tokens masked, for a model with a masked head.
        provider: where onnxruntime runs.
        batch_size: examples that run at once (None: as many as a budget of tokens holds).
        dose: whether to score the first dims alone too: one, two, and so on.
        until_certain: whether to stop as soon as an interval that is valid at any number of
            examples settles the verdict. The examples then come in random order.
        resume: whether to go on where an evaluation with the same settings was interrupted.
        progress: told of each batch.

    Raises:
        EvaluationError: the artifact, the data, a number or the provider does not allow it.
    """
    _check_numbers(seed, mask_rate, batch_size)
    opened = open_artifact(artifact)
    task = TASKS[opened.facts.task]
    doses = draw_doses(opened) if dose else ()
    patched = Variant("patched", opened.record.dims)
    variants = (BASELINE, patched, *draw_controls(opened, controls, seed), *doses)
    texts = texts or built_in_sample()
    encoded = encode_for(opened, texts)
    settings = make_settings(opened, seed, mask_rate)
    examples = make_examples(task, encoded, settings, texts)
    if until_certain:
        order = np.random.default_rng([seed, len(examples)]).permutation(len(examples))
        examples = [examples[number] for number in order]
    session = open_session(
        opened.model_path,
        opened.facts.output,
        tuple(opened.baseline),
        provider,
        per_token=task.reduce is not None,
    )
    scorer = Scorer(opened, task, session, batch_size)
    dataset = describe_data(texts, encoded, examples)
    partial = partial_of(artifact, _identity(artifact, variants, settings, dataset, until_certain))
    observed = _observe(
        scorer, variants, examples, partial, progress, controls, until_certain, resume
    )
    seen = observed.shape[1]
    stopped = seen < len(examples)
    metrics = [task.score(kept, observed[0]) for kept in observed]
    scores = [_score(task, *pair) for pair in zip(variants, metrics, strict=True)]
    main = [metric[task.metric] for metric in metrics]
    last = 2 + controls
    damages = [control.value - scores[0].value for control in scores[2:last]]
    delta = scores[1].value - scores[0].value
    progress("computing the interval", 0, 0)
    interval = (
        confidence_sequence(main[1], main[0])
        if stopped
        else paired_interval(main[1], main[0], seed)
    )
    random_range = control_range(damages)
    progress("filling in blanks", 0, 0)
    result = Evaluation(
        model=opened.record.model,
        task=task.name,
        title=task.title,
        metric=task.metric,
        unit=task.unit,
        baseline=scores[0],
        patched=scores[1],
        controls=tuple(scores[2:last]),
        delta=delta,
        ci95=interval,
        control_range=random_range,
        p_value=chance_of_rank(delta, damages),
        verdict=judge(delta, interval, random_range),
        seed=seed,
        mask_rate=mask_rate if task.name == "mlm" else None,
        providers=session.providers,
        dataset=describe_data(texts, encoded, examples[:seen]),
        versions={
            "surgeon": surgeon.__version__,
            "onnxruntime": onnxruntime.__version__,
            "numpy": np.__version__,
        },
        warnings=_warnings(opened, dataset, controls),
        stopped_after=seen if stopped else None,
        dose=tuple(
            _dose(score, main[0], scored, seed)
            for score, scored in zip(scores[last:], main[last:], strict=True)
        ),
        fill_ins=fill_in(scorer, patched, examples),
        expected=expected_verdict(opened.record.recipe, task.name),
    )
    partial.remove()
    return result


def encode_for(artifact: Artifact, texts: Texts) -> Encoded:
    """Tokenize texts with the artifact's own tokenizer, cut to the model's length.

    Raises:
        EvaluationError: the artifact has no tokenizer, or it cannot be read.
    """
    facts = artifact.facts.tokenizer
    tokenizer = read_tokenizer(artifact.directory, facts)
    unknown = facts.unknown_id if facts else None
    return encode(texts, tokenizer, artifact.facts.max_length, unknown)


def _check_numbers(seed: int, mask_rate: float, batch_size: int | None) -> None:
    if seed < 0:
        raise EvaluationError(f"--seed {seed}: give a number of 0 or more")
    if not 0 < mask_rate < 1:
        raise EvaluationError(f"--mask-rate {mask_rate:g}: give a share between 0 and 1")
    if batch_size is not None and batch_size < 1:
        raise EvaluationError(f"--batch-size {batch_size}: give a number of 1 or more")


def _identity(
    artifact: Path,
    variants: Sequence[Variant],
    settings: Settings,
    dataset: Dataset,
    until_certain: bool,  # noqa: FBT001  (it is one of the values, not a switch)
) -> dict[str, object]:
    """Return all that the observations depend on, as plain JSON values."""
    return {
        "record": hashlib.sha256((artifact / RECORD).read_bytes()).hexdigest(),
        "variants": [list(variant.dims) for variant in variants],
        "settings": repr(settings),
        "dataset": vars(dataset),
        "shuffled": until_certain,
        "surgeon": surgeon.__version__,
        "onnxruntime": onnxruntime.__version__,
    }


def _observe(
    scorer: Scorer,
    variants: Sequence[Variant],
    examples: Sequence[Example],
    partial: Partial,
    progress: Progress,
    controls: int,
    until_certain: bool,  # noqa: FBT001
    resume: bool,  # noqa: FBT001
) -> Floats:
    """Observe block after block, until the end or the verdict; (variants, examples, kept)."""
    observed = partial.load() if resume else None
    step = _LOOK if until_certain else _BLOCK
    start = 0 if observed is None else observed.shape[1]
    for first in range(start, len(examples), step):
        block = examples[first : first + step]
        new = observe_all(scorer, variants, block, progress, first, len(examples))
        observed = new if observed is None else np.concatenate([observed, new], axis=1)
        if until_certain and _settled(scorer.task, observed, controls):
            break
        if observed.shape[1] < len(examples):
            partial.save(observed)
    assert observed is not None
    return observed


def _settled(task: Task, observed: Floats, controls: int) -> bool:
    scores = [task.score(kept, observed[0])[task.metric] for kept in observed[: 2 + controls]]
    damages = [control.value - scores[0].value for control in scores[2:]]
    return is_settled(confidence_sequence(scores[1], scores[0]), control_range(damages))


def _dose(score: Score, baseline: Scores, scored: Scores, seed: int) -> Dose:
    interval = paired_interval(scored, baseline, seed)
    return Dose(score.dims, score.value, score.value - baseline.value, interval)


def make_settings(artifact: Artifact, seed: int, mask_rate: float) -> Settings:
    """Return what a task must know of the user's choices and of the artifact's tokenizer."""
    tokenizer = artifact.facts.tokenizer
    return Settings(
        seed=seed,
        mask_rate=mask_rate,
        mask_id=tokenizer.mask_id if tokenizer else None,
        special_ids=tokenizer.special_ids if tokenizer else (),
    )


def make_examples(task: Task, encoded: Encoded, settings: Settings, texts: Texts) -> list[Example]:
    """Make the task's examples of token sequences.

    Raises:
        EvaluationError: there are fewer than two, so that no interval can be had.
    """
    prepared = (task.prepare(ids, settings) for ids in encoded.sequences)
    examples = [example for example in prepared if example is not None]
    if len(examples) < 2:
        raise EvaluationError(
            f"--data {texts.name}: {len(examples)} of {len(texts.lines)} texts have tokens that "
            "this model's tokenizer knows and an interval takes 2; give text of the kind the model "
            "was trained on"
        )
    return examples


def _score(task: Task, variant: Variant, metrics: Mapping[str, Scores]) -> Score:
    values = {name: scores.value for name, scores in metrics.items()}
    return Score(variant.dims, values[task.metric], {**values, **task.derive(values)})


def describe_data(texts: Texts, encoded: Encoded, examples: Sequence[Example]) -> Dataset:
    """Return what the result says of the data."""
    return Dataset(
        name=texts.name,
        sha256=hashlib.sha256(texts.raw).hexdigest(),
        examples=len(examples),
        tokens=sum(len(example.ids) for example in examples),
        scored_tokens=sum(example.labels.size for example in examples),
        skipped=len(texts.lines) - len(examples),
        truncated=encoded.truncated,
        unknown=encoded.unknown,
    )


def _warnings(artifact: Artifact, dataset: Dataset, controls: int) -> tuple[str, ...]:
    found = []
    if controls < _FEW_CONTROLS:
        found.append(
            f"with {controls} controls, 1 random removal in {controls + 1} is worse than all of "
            "them; more --controls make a firmer verdict"
        )
    if artifact.record.parameters_changed == 0:
        found.append("the operation changed no value: the patched model is the baseline")
    if dataset.unknown > _MOST_UNKNOWN * dataset.tokens:
        found.append(
            f"{dataset.unknown} of {dataset.tokens} tokens are unknown to the tokenizer: the data "
            "are not of the kind this model reads"
        )
    if dataset.truncated:
        found.append(f"{dataset.truncated} texts were cut to {artifact.facts.max_length} tokens")
    return tuple(found)
