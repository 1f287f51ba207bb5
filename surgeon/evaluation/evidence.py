"""What a verdict can rest on: how many different texts, and a baseline that has skill to lose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from surgeon.scoring.examples import Example
from surgeon.scoring.statistics import Groups, Interval
from surgeon.scoring.tasks import Scores, Settings, Task
from surgeon.scoring.tasks.task import Floats

Measure: TypeAlias = Callable[[Scores, Scores], Interval]

LEAST = 6
"""Distinct texts below which there is no verdict.

Five differences all have the same sign by chance in 2 of 2⁵ cases, more than 5 in 100, so that
they give no interval of 95%.
"""
FEW = 10
"""Distinct texts below which a reader is warned."""

_ANOTHER_SCALE = 0.5  # Pearson's correlation from which errors are a matter of the scale


@dataclass(frozen=True)
class Evidence:
    """What a verdict can rest on.

    ``distinct`` of the ``examples`` are different texts. ``unskilled`` says why the baseline does
    nothing that a removal could undo (None: it does something). ``firm`` is whether enough texts
    changed for the interval to hold, and ``unchanged`` whether the operation changed no value.
    """

    examples: int
    distinct: int
    unskilled: str | None = None
    firm: bool = True
    unchanged: bool = False


def number_texts(examples: Sequence[Example]) -> Groups:
    """Return the number of the text that each example is, in the order of their appearance."""
    numbers: dict[tuple[tuple[int, ...], ...], int] = {}
    return np.array(
        [
            numbers.setdefault(tuple(part.ids for part in example.sequences), len(numbers))
            for example in examples
        ],
        dtype=np.int64,
    )


def heaviest_text(examples: Sequence[Example], texts: Groups) -> float:
    """Return the most that is scored of one text, by which bounded scores are weighed."""
    scored = [max(1, example.labels.size) for example in examples]
    return float(np.bincount(texts, weights=scored).max())


def why_unskilled(
    task: Task,
    examples: Sequence[Example],
    observed: Floats,
    settings: Settings,
    measure: Measure,
) -> str | None:
    """Say why the baseline is not better than predictors without skill; None: it is.

    Args:
        task: what is scored.
        examples: the examples.
        observed: what was observed of the baseline, (examples, kept).
        settings: those of the task.
        measure: gives the interval of a difference.
    """
    predictors = task.naive(examples, observed, settings)
    if not predictors:
        return None
    if task.head == "classification" and np.ptp(observed[:, 0]) == 0:
        return "all examples have the same label"
    own = task.scores(observed, observed, settings)[task.metric]
    for name, naive in predictors.items():
        other = task.scores(naive, observed, settings)[task.metric]
        if measure(other, own)[0] > 0:
            continue
        found = (
            f"the baseline's {task.metric} of {own.value:.4g} is not shown to be better than the "
            f"{other.value:.4g} of {name}"
        )
        return f"{found}{_another_scale(task, observed)}"
    return None


def _another_scale(task: Task, observed: Floats) -> str:
    """Say so if the baseline ranks the examples well, and its numbers are not those of the data."""
    if task.metric != "squared error":
        return ""
    expected, predicted = observed.T
    if not np.ptp(predicted) or np.corrcoef(expected, predicted)[0, 1] < _ANOTHER_SCALE:
        return ""
    spans = (f"{values.min():.4g} to {values.max():.4g}" for values in (expected, predicted))
    return (
        " (the labels run from {} and the predictions from {}: bring the labels to the model's "
        "scale, or let --metric Pearson decide)".format(*spans)
    )
