"""Losses of choices, and the scores of a whole set that no sum over its examples gives."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from surgeon.tasks.task import Floats, Scores

Counts = npt.NDArray[np.int64]


def cross_entropy(logits: npt.NDArray[np.floating], labels: Counts) -> Floats:
    """Return the loss in nats of each row's label, (rows,), from logits of (rows, labels)."""
    from scipy.special import log_softmax

    losses: Floats = -log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels]
    return losses


def detection(right: Floats, found: Floats, there: Floats) -> dict[str, Scores]:
    """Return precision, recall and F1 of a whole set.

    Each example has how many it found and are right, how many it found, and how many are there.
    """
    total = np.stack([right, found], axis=1)
    return {
        name: Scores(total, there, functools.partial(_detected, name))
        for name in ("precision", "recall", "F1")
    }


def _detected(name: str, total: Floats, there: Floats) -> Floats:
    right, found = total.sum(axis=0)
    return detection_rates(right, found, there.sum())[name]


def detection_rates(right: Floats, found: Floats, there: Floats) -> dict[str, Floats]:
    """Return precision, recall and F1 of counts; 0 where there is nothing to divide by."""
    return {
        "precision": right / np.maximum(found, 1),
        "recall": right / np.maximum(there, 1),
        "F1": 2 * right / np.maximum(found + there, 1),
    }


def rates_by_label(
    labels: Sequence[str], right: Floats, found: Floats, there: Floats
) -> Mapping[str, Mapping[str, float]]:
    """Return precision, recall and F1 of each label, and how many there are of it (support)."""
    columns = {**detection_rates(right, found, there), "support": there}
    return {
        label: {name: float(values[number]) for name, values in columns.items()}
        for number, label in enumerate(labels)
    }


def count_labels(
    guessed: npt.NDArray[np.number], expected: npt.NDArray[np.number], labels: int = 0
) -> tuple[Floats, Floats, Floats]:
    """Return how often each label was guessed rightly, was guessed, and was expected."""
    width = max(labels, 1 + int(max(guessed.max(), expected.max())))
    found = (expected[guessed == expected], guessed, expected)
    right, guesses, there = (np.bincount(v.astype(np.int64), minlength=width) for v in found)
    return right.astype(np.float64), guesses.astype(np.float64), there.astype(np.float64)


def macro_f1(guessed: Floats, expected: Floats) -> Floats:
    """Return F1, averaged over the labels that were guessed or expected."""
    right, found, there = count_labels(guessed, expected)
    return np.asarray(detection_rates(right, found, there)["F1"][found + there > 0].mean())


def matthews(guessed: Floats, expected: Floats) -> Floats:
    """Return Matthews' correlation (Gorodkin 2004); 0 where one side does not vary."""
    right, found, there = count_labels(guessed, expected)
    count = guessed.size
    covariance = right.sum() * count - found @ there
    spread = (count**2 - found @ found) * (count**2 - there @ there)
    return np.asarray(covariance / np.sqrt(spread) if spread > 0 else 0.0)


def pearson(predicted: Floats, expected: Floats) -> Floats:
    """Return the correlation; 0 where one side does not vary."""
    first, second = predicted - predicted.mean(), expected - expected.mean()
    norm = np.sqrt((first @ first) * (second @ second))
    return np.asarray(first @ second / norm if norm > 0 else 0.0)


def spearman(predicted: Floats, expected: Floats) -> Floats:
    """Return the correlation of the ranks; 0 where one side does not vary."""
    from scipy.stats import rankdata

    return pearson(rankdata(predicted), rankdata(expected))
