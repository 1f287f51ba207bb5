"""What an evaluation's settings mean for a model: the task, its examples and their description."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from surgeon.evaluation.artifact import Artifact
from surgeon.evaluation.describe import describe_data
from surgeon.evaluation.request import choose_task, find_data, make_examples, make_settings
from surgeon.evaluation.result import Dataset
from surgeon.scoring.examples import Example
from surgeon.scoring.tasks import Settings, Task
from surgeon.surgery.expectation import EvaluationSettings


@dataclass(frozen=True, eq=False)
class Prepared:
    """Examples ready to run, of which every variant sees the same."""

    task: Task
    settings: Settings
    examples: Sequence[Example]
    dataset: Dataset


def prepare(artifact: Artifact, settings: EvaluationSettings) -> Prepared:
    """Read the data and make the examples that an evaluation with these settings runs.

    Raises:
        EvaluationError: the data cannot be read or give no examples, or the graph has no head for
            the task.
    """
    task = choose_task(artifact, settings.task)
    chosen = make_settings(artifact, task, settings, settings.seed or 0)
    data = find_data(task, settings.data, chosen)
    made = make_examples(artifact, task, chosen, data)
    return Prepared(task, chosen, made.examples, describe_data(data, made, made.examples))
