"""Artifact → verdict: baseline, patched model and controls on the same examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime

import surgeon
from surgeon.errors import EvaluationError
from surgeon.evaluation.artifact import Artifact, open_artifact
from surgeon.evaluation.result import Dataset, Evaluation, Score
from surgeon.evaluation.session import ProviderName, Session, open_session
from surgeon.evaluation.variants import BASELINE, Variant, draw_controls, tensors_of
from surgeon.evaluation.verdict import judge
from surgeon.progress import Progress, silent
from surgeon.scoring.examples import Encoded, Example, batches_by_length, encode, make_batch
from surgeon.scoring.statistics import chance_of_rank, control_range, paired_interval
from surgeon.scoring.tasks import TASKS, Scores, Settings, Task
from surgeon.scoring.tasks.task import Floats
from surgeon.scoring.tokenizer import read_tokenizer
from surgeon.text import Texts, built_in_sample, fingerprint

_FEW_CONTROLS = 5
_MOST_UNKNOWN = 0.2  # share of unknown tokens from which the data do not fit the model


def evaluate(
    artifact: Path,
    *,
    texts: Texts | None = None,
    controls: int = 10,
    seed: int = 0,
    mask_rate: float = 0.15,
    provider: ProviderName = "auto",
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
        seed: of the masks, the controls and the bootstrap.
        mask_rate: the share of tokens masked, for a model with a masked head.
        provider: where onnxruntime runs.
        progress: told of each batch.

    Raises:
        EvaluationError: the artifact, the data, a number or the provider does not allow it.
    """
    _check_numbers(seed, mask_rate)
    opened = open_artifact(artifact)
    task = TASKS[opened.facts.task]
    patched = Variant("patched", opened.record.dims)
    variants = (BASELINE, patched, *draw_controls(opened, controls, seed))
    texts = texts or built_in_sample()
    encoded = encode_for(opened, texts)
    examples = _prepare(task, encoded, _settings(opened, seed, mask_rate), texts)
    session = open_session(opened.model_path, opened.facts.output, tuple(opened.baseline), provider)
    observed = [
        _observe(opened, task, session, examples, variant, _counted(progress, variant, variants))
        for variant in variants
    ]
    metrics = [task.score(kept, observed[0]) for kept in observed]
    scores = [_score(task, *pair) for pair in zip(variants, metrics, strict=True)]
    delta = scores[1].value - scores[0].value
    damages = [control.value - scores[0].value for control in scores[2:]]
    progress("computing the interval", 0, 0)
    interval = paired_interval(metrics[1][task.metric], metrics[0][task.metric], seed)
    random_range = control_range(damages)
    dataset = _dataset(texts, encoded, examples)
    return Evaluation(
        model=opened.record.model,
        task=task.name,
        title=task.title,
        metric=task.metric,
        unit=task.unit,
        baseline=scores[0],
        patched=scores[1],
        controls=tuple(scores[2:]),
        delta=delta,
        ci95=interval,
        control_range=random_range,
        p_value=chance_of_rank(delta, damages),
        verdict=judge(delta, interval, random_range),
        seed=seed,
        mask_rate=mask_rate if task.name == "mlm" else None,
        providers=session.providers,
        dataset=dataset,
        versions={
            "surgeon": surgeon.__version__,
            "onnxruntime": onnxruntime.__version__,
            "numpy": np.__version__,
        },
        warnings=_warnings(opened, texts, dataset, controls),
    )


def encode_for(artifact: Artifact, texts: Texts) -> Encoded:
    """Tokenize texts with the artifact's own tokenizer, cut to the model's length.

    Raises:
        EvaluationError: the artifact has no tokenizer, or it cannot be read.
    """
    facts = artifact.facts.tokenizer
    tokenizer = read_tokenizer(artifact.directory, facts)
    unknown = facts.unknown_id if facts else None
    return encode(texts, tokenizer, artifact.facts.max_length, unknown)


def _check_numbers(seed: int, mask_rate: float) -> None:
    if seed < 0:
        raise EvaluationError(f"--seed {seed}: give a number of 0 or more")
    if not 0 < mask_rate < 1:
        raise EvaluationError(f"--mask-rate {mask_rate:g}: give a share between 0 and 1")


def _settings(artifact: Artifact, seed: int, mask_rate: float) -> Settings:
    tokenizer = artifact.facts.tokenizer
    return Settings(
        seed=seed,
        mask_rate=mask_rate,
        mask_id=tokenizer.mask_id if tokenizer else None,
        special_ids=tokenizer.special_ids if tokenizer else (),
    )


def _prepare(task: Task, encoded: Encoded, settings: Settings, texts: Texts) -> list[Example]:
    prepared = (task.prepare(ids, settings) for ids in encoded.sequences)
    examples = [example for example in prepared if example is not None]
    if len(examples) < 2:
        raise EvaluationError(
            f"--data {texts.name}: {len(examples)} of {len(texts.lines)} texts have tokens that "
            "this model's tokenizer knows and an interval takes 2; give text of the kind the model "
            "was trained on"
        )
    return examples


def _counted(progress: Progress, variant: Variant, variants: Sequence[Variant]) -> Progress:
    """Turn progress within one variant into progress over all of them."""
    before = variants.index(variant)

    def report(step: str, done: int, total: int) -> None:
        progress(step, before * total + done, len(variants) * total)

    return report


def _observe(
    artifact: Artifact,
    task: Task,
    session: Session,
    examples: Sequence[Example],
    variant: Variant,
    progress: Progress,
) -> Floats:
    """Run all examples through one variant; returns (examples, kept), in their order."""
    facts, tensors = artifact.facts, tensors_of(artifact, variant)
    pad = facts.tokenizer.pad_id if facts.tokenizer else 0
    kept: list[Floats | None] = [None] * len(examples)
    done = 0
    for numbers in batches_by_length(examples, session.width):
        progress(f"scoring {variant.name}", done, len(examples))
        batch = make_batch([examples[n].ids for n in numbers], facts.inputs, pad)
        for number, output in zip(numbers, session.run(batch, tensors), strict=True):
            kept[number] = task.observe(output, examples[number])
        done += len(numbers)
    observed: Floats = np.stack([row for row in kept if row is not None])
    if not np.isfinite(observed).all():
        raise EvaluationError(
            f"{variant.name} with dims {list(variant.dims)}: the model's output is not finite, so "
            "there is no score to compare"
        )
    return observed


def _score(task: Task, variant: Variant, metrics: Mapping[str, Scores]) -> Score:
    values = {name: scores.value for name, scores in metrics.items()}
    return Score(variant.dims, values[task.metric], {**values, **task.derive(values)})


def _dataset(texts: Texts, encoded: Encoded, examples: Sequence[Example]) -> Dataset:
    return Dataset(
        name=texts.name,
        sha256=texts.sha256,
        examples=len(examples),
        tokens=sum(len(example.ids) for example in examples),
        scored_tokens=sum(example.labels.size for example in examples),
        skipped=len(texts.lines) - len(examples),
        truncated=encoded.truncated,
        unknown=encoded.unknown,
    )


def _warnings(artifact: Artifact, texts: Texts, dataset: Dataset, controls: int) -> tuple[str, ...]:
    found = []
    if controls < _FEW_CONTROLS:
        found.append(
            f"with {controls} controls, 1 random removal in {controls + 1} is worse than all of "
            "them; more --controls make a firmer verdict"
        )
    if artifact.record.parameters_changed == 0:
        found.append("the operation changed no value: the patched model is the baseline")
    ranked_on = artifact.record.ranked_on
    seen = set(ranked_on.lines) if ranked_on else set()
    if shared := sum(fingerprint(line) in seen for line in texts.lines):
        found.append(
            f"{shared} of {len(texts.lines)} texts also chose the dimensions: judged on what "
            "chose it, a removal looks worse than it is; take other --data"
        )
    if dataset.unknown > _MOST_UNKNOWN * dataset.tokens:
        found.append(
            f"{dataset.unknown} of {dataset.tokens} tokens are unknown to the tokenizer: the data "
            "are not of the kind this model reads"
        )
    if dataset.truncated:
        found.append(f"{dataset.truncated} texts were cut to {artifact.facts.max_length} tokens")
    return tuple(found)
