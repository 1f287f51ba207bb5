"""The labels of data → the outputs of a model, or numbers; losses and scores of choices."""

from __future__ import annotations

import functools
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from surgeon.errors import EvaluationError
from surgeon.tasks.table import Located
from surgeon.tasks.task import Floats, Scores

_PLAIN = re.compile(r"LABEL_(\d+)", re.IGNORECASE)
_LISTED = 10  # labels that an error lists,
_LONG = 40  # and their characters: a column of texts may be taken for one of labels
_MISSING = -1  # what GLUE's test splits have in place of a label,
_IGNORED = -100  # and what PyTorch's losses pass over

CLASSES: Mapping[str, tuple[str, ...]] = {
    "glue/cola": ("unacceptable", "acceptable"),
    "glue/sst2": ("negative", "positive"),
    "glue/mrpc": ("not_equivalent", "equivalent"),
    "glue/qqp": ("not_duplicate", "duplicate"),
    "glue/mnli": ("entailment", "neutral", "contradiction"),
    "glue/qnli": ("entailment", "not_entailment"),
    "glue/rte": ("entailment", "not_entailment"),
    "glue/wnli": ("not_entailment", "entailment"),
}
"""What the integers in a task's data stand for, in order."""


def is_missing(value: Any, labels: Sequence[str] = ()) -> bool:
    """Whether data have this where there is no label: nothing, "-", -1 or -100.

    A number may be written as text. What the model has among its ``labels`` is a label.
    """
    number = _integer(value)
    if value == "-" or number in (_MISSING, _IGNORED):
        return str(value if number is None else number) not in labels
    return _is_empty(value)


def _is_empty(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def numeric_labels(located: Located) -> list[float | None]:
    """Return the label of each row as a number; None where it has none.

    -1 is a missing label, unless there are other numbers below 0: then it is one of a scale.

    Raises:
        EvaluationError: a label is not a finite number.
    """
    numbers = [
        None if _is_empty(value) or value == "-" else _number(value, located.table.place(row))
        for row, value in enumerate(located.labels)
    ]
    scale = any(number is not None and number < 0 and number != -1 for number in numbers)
    return [None if number == -1 and not scale else number for number in numbers]


def _number(value: Any, place: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise EvaluationError(
            f"`texts` {place}: the label {value} is not a number, and the task compares numbers; "
            "name the column of numbers with `label_column`"
        )
    return number


def match_labels(
    values: Sequence[Any], classes: Sequence[str], labels: Sequence[str], source: str
) -> list[int | None]:
    """Return the number of the model's output that each label stands for; None for a missing one.

    Names are compared without case, blanks, hyphens and underscores. Where the model's labels are
    the plain LABEL_0, LABEL_1, …, integers are the outputs' own numbers, and names are counted in
    the order of ``classes``.

    Args:
        values: the labels, as the data have them: names or integers.
        classes: what integers stand for in the data, in order; empty where nothing is known.
        labels: the model's, in the order of its outputs.
        source: how an error names the data.

    Raises:
        EvaluationError: the model has no such label, or one is neither a name nor a number.
    """
    there = [None if is_missing(value, labels) else value for value in values]
    given = [value for value in there if value is not None]
    for value in given:
        if isinstance(value, list | dict):
            raise EvaluationError(
                f"`texts` {source}: the label {value} is not a name or a number; name the column "
                "that has one label for each row with `label_column`"
            )
    # A model that tells "a" from "A" is taken by the letter.
    name_of = _normalized if len({*map(_normalized, labels)}) == len(labels) else str
    outputs = {name_of(label): number for number, label in enumerate(labels)}
    found: dict[Any, int | None] = {}
    for value in dict.fromkeys(given):
        names = map(name_of, _names_of(value, classes, labels))
        found[value] = next((outputs[name] for name in names if name in outputs), None)
    unknown = [value for value, number in found.items() if number is None]
    if unknown:
        shown = sorted(_shown(value, classes) for value in found)
        raise EvaluationError(
            f"`texts` {source}: the label {_shown(unknown[0], classes)} is not one of the model's; "
            f"the data have {_listed(shown)} and the model {_listed(labels)}; "
            f"{_remedy(unknown[0], labels)}"
        )
    return [found.get(value) for value in there]


def _names_of(value: Any, classes: Sequence[str], labels: Sequence[str]) -> list[Any]:
    """Return what a model with these labels may call one of the data."""
    number = _integer(value)
    if all(_PLAIN.fullmatch(label) for label in labels):
        counted = {_normalized(name): place for place, name in enumerate(classes)}
        number = counted.get(_normalized(value)) if number is None else number
        return [value if number is None else f"label{number}"]
    if number is None:
        return [value]
    return [classes[number]] if 0 <= number < len(classes) else [value, number]  # 5.0 is the 5


def _remedy(unknown: Any, labels: Sequence[str]) -> str:
    names = {_normalized(label) for label in labels}
    tasks = [task for task, classes in CLASSES.items() if set(map(_normalized, classes)) == names]
    if _integer(unknown) is None:
        return "use the names in id2label of config.json"
    if tasks:
        return f"if they are GLUE's numbers, name the task: `task` {' or '.join(tasks)}"
    return "use the names in id2label of config.json in place of the numbers"


def _listed(names: Sequence[str]) -> str:
    shown = [name if len(name) <= _LONG else f"{name[:_LONG]}…" for name in names[:_LISTED]]
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(shown) + more


def _normalized(label: Any) -> str:
    composed = unicodedata.normalize("NFC", str(label))  # é in one character
    return re.sub(r"[\s_]+|(?<!^)-+", "", composed).casefold()  # -1 is not 1


def _integer(value: Any) -> int | None:
    if isinstance(value, bool):
        return int(value)
    try:
        return int(float(value)) if float(value).is_integer() else None
    except (TypeError, ValueError, OverflowError):
        return None


def _shown(value: Any, classes: Sequence[str]) -> str:
    number = _integer(value)
    known = number is not None and 0 <= number < len(classes)
    return f"{value} ({classes[number]})" if known and number is not None else str(value)


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
