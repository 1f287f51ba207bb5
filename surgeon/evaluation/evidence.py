"""What a verdict can rest on: how many different examples, and a baseline that can get worse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from surgeon.scoring.examples import Example
from surgeon.scoring.tasks import Task
from surgeon.scoring.tasks.task import Floats

LEAST = 6
"""Distinct examples below which there is no verdict.

Five differences all have the same sign by chance in 2 of 2⁵ cases, more than 5 in 100, so that
resampling them gives no interval of 95%.
"""
FEW = 10
"""Distinct examples below which a reader is warned: their bootstrap interval is too narrow."""

# Metrics of which a baseline may have got nothing right, and their value from there on.
_NOTHING_RIGHT = {"error rate": 1.0, "1 − F1": 1.0, "1 − Spearman": 1.0}
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Evidence:
    """What a verdict can rest on.

    ``distinct`` of the ``examples`` are different texts. ``unskilled`` says why the baseline does
    nothing that a removal could undo (None: it does something).
    """

    examples: int
    distinct: int
    unskilled: str | None = None


def evidence_of(task: Task, examples: Sequence[Example], baseline: Floats) -> Evidence:
    """Weigh the examples and the observations of the baseline, (examples, kept)."""
    texts = {tuple(sequence.ids for sequence in example.sequences) for example in examples}
    return Evidence(len(examples), len(texts), _unskilled(task, baseline))


def _unskilled(task: Task, baseline: Floats) -> str | None:
    value = task.score(baseline, baseline)[task.metric].value
    if value >= _NOTHING_RIGHT.get(task.metric, float("inf")) - _ROUNDING:
        return f"the baseline's {task.metric} is {value:.4g}, so that it has nothing right to lose"
    if task.head == "classification" and task.metric == "error rate":
        guessed = baseline[:, 1:].argmax(axis=1)
        if (guessed == guessed[0]).all():
            return "the baseline gives every example the same label, which takes no skill to lose"
    return None
