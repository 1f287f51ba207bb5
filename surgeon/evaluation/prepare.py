"""What an evaluation's settings mean for a model: the task, its examples and their description."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from surgeon.errors import EvaluationError
from surgeon.evaluation.artifact import Artifact
from surgeon.evaluation.evaluate import describe_data, encode_for, make_examples, make_settings
from surgeon.evaluation.result import Dataset
from surgeon.scoring.examples import Example
from surgeon.scoring.tasks import TASKS, Task
from surgeon.surgery.expectation import EvaluationSettings
from surgeon.text import built_in_sample, read_texts

MASK_RATE = 0.15
"""The share of tokens masked where no setting says otherwise."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """Examples ready to run, of which every variant sees the same."""

    task: Task
    examples: Sequence[Example]
    dataset: Dataset


def prepare(artifact: Artifact, settings: EvaluationSettings) -> Prepared:
    """Read the data and make the examples that an evaluation with these settings runs.

    Raises:
        EvaluationError: the data cannot be read or give no examples, or the graph has no head for
            the task.
    """
    task = TASKS[artifact.facts.task]
    if settings.task not in (None, task.name):
        raise EvaluationError(
            f"task {settings.task}: the graph of {artifact.record.model} is scored on {task.name}"
        )
    texts = read_texts(Path(settings.data)) if settings.data else built_in_sample()
    encoded = encode_for(artifact, texts)
    mask_rate = MASK_RATE if settings.mask_rate is None else settings.mask_rate
    examples = make_examples(
        task, encoded, make_settings(artifact, settings.seed or 0, mask_rate), texts
    )
    return Prepared(task, examples, describe_data(texts, encoded, examples))
