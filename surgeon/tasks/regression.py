"""Regression: a classifier's head with one output, such as the similarity of two sentences.

The metric is the squared error, which averages over examples and is larger where it is worse.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from surgeon.errors import EvaluationError
from surgeon.tasks.classification import (
    COLUMN_OPTIONS,
    is_empty,
    observe_logits,
    read_examples,
    rows_of,
)
from surgeon.tasks.columns import Located
from surgeon.tasks.examples import Encoder, Example, Prepared
from surgeon.tasks.task import (
    INVERTED,
    Data,
    Floats,
    Scores,
    Settings,
    Task,
)


def numbers_of(located: Located) -> list[float | None]:
    """Return the label of each row as a number; None where it has none.

    -1 is a missing label, unless there are other numbers below 0: then it is one of a scale.

    Raises:
        EvaluationError: a label is no finite number.
    """
    values = located.table.values(str(located.label))
    numbers = [
        None if is_empty(value) or value == "-" else _number(value, located, row)
        for row, value in enumerate(values)
    ]
    scale = any(number is not None and number < 0 and number != -1 for number in numbers)
    return [None if number == -1 and not scale else number for number in numbers]


def _number(value: Any, located: Located, row: int) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise EvaluationError(
            f"--data {located.table.place(row)}: the label {value} is no number, and this model "
            "has one output, which predicts numbers"
        )
    return number


CORRELATIONS = (f"{INVERTED}Pearson", f"{INVERTED}Spearman")
"""The metrics that are made of ``correlations``."""


def correlations(observed: Floats, settings: Settings) -> Mapping[str, Scores]:  # noqa: ARG001
    """Return Pearson's and Spearman's correlation of what is expected and what is predicted.

    ``observed`` has both, (examples, 2).
    """
    expected, predicted = observed.T
    return {
        "Pearson": Scores(predicted, expected, _pearson),
        "Spearman": Scores(predicted, expected, _spearman),
    }


def _pearson(predicted: Floats, expected: Floats) -> Floats:
    """Return the correlation, 0 where one side does not vary."""
    first, second = predicted - predicted.mean(), expected - expected.mean()
    norm = np.sqrt((first @ first) * (second @ second))
    return np.asarray(first @ second / norm if norm > 0 else 0.0)


def _spearman(predicted: Floats, expected: Floats) -> Floats:
    from scipy.stats import rankdata

    return _pearson(rankdata(predicted), rankdata(expected))


def read_regression(data: Data, encoder: Encoder, settings: Settings) -> Prepared:
    """Make examples of rows whose labels are numbers."""
    located = rows_of(data, settings)
    return read_examples(located, numbers_of(located), encoder)


def _measure(observed: Floats, settings: Settings) -> Mapping[str, Scores]:
    expected, predicted = observed.T
    error = Scores((predicted - expected) ** 2, np.ones_like(expected))
    return {"squared error": error, **correlations(observed, settings)}


def naive_numbers(
    examples: Sequence[Example],  # noqa: ARG001
    observed: Floats,
    settings: Settings,
) -> Mapping[str, Floats]:
    """Return what the mean for all would be observed as, and the answers to other examples."""
    expected, predicted = observed.T
    shuffled = np.random.default_rng(settings.seed).permutation(predicted)
    return {
        "the mean for all": np.stack([expected, np.full_like(expected, expected.mean())], axis=1),
        "its own answers shuffled": np.stack([expected, shuffled], axis=1),
    }


REGRESSION = Task(
    name="regression",
    title="regression",
    metric="squared error",
    unit="mean of the squared difference from the label",
    head="classification",
    read=read_regression,
    observe=observe_logits,
    measure=_measure,
    further=CORRELATIONS,
    whole=CORRELATIONS,
    naive=naive_numbers,
    relative=True,
    options=COLUMN_OPTIONS,
    needs="table",
    numeric=True,
)
