"""Classification of texts and of pairs of texts, by any labelled data.

The metric is the error rate: each example counts 1 where the likeliest label is not the expected
one, so that it averages over examples and larger is worse. Accuracy, F1, Matthews' correlation and
the log-loss come beside it, and ``--metric`` lets one of them decide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from surgeon.errors import EvaluationError
from surgeon.scoring.data import Table
from surgeon.scoring.data.columns import Located, locate
from surgeon.scoring.encoder import Encoder, Prepared
from surgeon.scoring.examples import Example
from surgeon.scoring.tasks.labels import is_missing, match_labels
from surgeon.scoring.tasks.task import (
    INVERTED,
    Data,
    Floats,
    Scores,
    Settings,
    Task,
    share_of_examples,
)

COLUMN_OPTIONS: Mapping[str, Any] = {"text_column": None, "pair_column": None, "label_column": None}


def rows_of(data: Data, settings: Settings, *, pair: bool | None = None) -> Located:
    """Find the columns of labelled data.

    Raises:
        EvaluationError: the data are no table, or lack a column.
    """
    if not isinstance(data, Table):
        raise EvaluationError(f"--data {data.name}: labelled rows are needed, and these are texts")
    return locate(data, settings.columns, pair=pair)


def texts_of(located: Located) -> list[str | tuple[str, str]]:
    """Return the text, or the two texts, of each row.

    Raises:
        EvaluationError: a row has none.
    """
    firsts = located.table.texts(located.text)
    if located.pair is None:
        return [*firsts]
    return [*zip(firsts, located.table.texts(located.pair), strict=True)]


def read_examples(located: Located, references: Sequence[Any], encoder: Encoder) -> Prepared:
    """Make an example of each row that has a reference (not None) and a token of its own."""
    encoded = encoder.encode(texts_of(located))
    rows = zip(encoded.sequences, encoded.types, references, strict=True)
    examples = tuple(
        Example(ids, types=types, reference=reference)
        for ids, types, reference in rows
        if reference is not None and ids
    )
    return Prepared(examples, len(references), encoded.truncated, encoded.unknown)


def classified(
    classes: tuple[str, ...], data: Data, encoder: Encoder, settings: Settings
) -> Prepared:
    """Make examples of the rows that have a label; ``classes`` are what integers stand for.

    Raises:
        EvaluationError: the data are no table, lack a column or a text, or have a label that is
            none of the model's.
    """
    located = rows_of(data, settings)
    table, column = located.table, str(located.label)
    values = table.values(column)
    known = table.classes.get(column, classes)
    missing = [is_missing(value, settings.labels) for value in values]
    labelled = [value for value, none in zip(values, missing, strict=True) if not none]
    numbers = iter(match_labels(labelled, known, settings.labels, table.name))
    references = [None if none else next(numbers) for none in missing]
    return read_examples(located, references, encoder)


def _read(data: Data, encoder: Encoder, settings: Settings) -> Prepared:
    return classified((), data, encoder, settings)


def observe_logits(logits: npt.NDArray[np.float32], example: Example) -> Floats:
    """Return the expected output's number and the logits, (1 + labels,)."""
    return np.concatenate([[float(example.reference)], logits.astype(np.float64)])


def score_labels(observed: Floats, baseline: Floats) -> Mapping[str, Scores]:  # noqa: ARG001
    """Return the error rate and the log-loss in nats, both per example."""
    from scipy.special import log_softmax

    labels = observed[:, 0].astype(np.int64)
    logits, wrong = observed[:, 1:], 1 - _right(observed)
    losses = -log_softmax(logits, axis=1)[np.arange(len(labels)), labels]
    return {
        "error rate": share_of_examples(wrong),
        "log-loss": Scores(losses, np.ones_like(losses)),
    }


def report_labels(observed: Floats, settings: Settings) -> Mapping[str, Mapping[str, float]]:
    """Return precision, recall and F1 of each label, and how many examples have it (support)."""
    from sklearn.metrics import precision_recall_fscore_support

    found = precision_recall_fscore_support(
        observed[:, 0].astype(np.int64),
        observed[:, 1:].argmax(axis=1),
        labels=range(len(settings.labels)),
        zero_division=0,
    )
    names = ("precision", "recall", "F1", "support")
    return {
        label: dict(zip(names, map(float, row), strict=True))
        for label, row in zip(settings.labels, zip(*found, strict=True), strict=True)
    }


def measure_labels(observed: Floats, settings: Settings) -> Mapping[str, Scores]:  # noqa: ARG001
    """Return accuracy, F1 averaged over the labels that occur, and Matthews' correlation."""
    guessed = guesses(observed).astype(np.float64)
    return {
        **measure_accuracy(observed),
        "F1 (macro)": Scores(guessed, observed[:, 0], _macro_f1),
        "Matthews": Scores(guessed, observed[:, 0], matthews),
    }


def measure_accuracy(observed: Floats) -> Mapping[str, Scores]:
    """Return the share of examples whose likeliest label is the expected one."""
    return {"accuracy": share_of_examples(_right(observed))}


def guesses(observed: Floats) -> npt.NDArray[np.int64]:
    """Return the likeliest label's number for each example."""
    return np.asarray(observed[:, 1:].argmax(axis=1))


def _right(observed: Floats) -> Floats:
    return np.asarray(guesses(observed) == observed[:, 0], dtype=np.float64)


def _counts(guessed: Floats, expected: Floats) -> tuple[Floats, Floats, Floats]:
    """Return how often each label was guessed, was expected, and was both."""
    width = 1 + int(max(guessed.max(), expected.max()))
    both = expected[guessed == expected]
    found = [np.bincount(v.astype(np.int64), minlength=width) for v in (guessed, expected, both)]
    return found[0].astype(np.float64), found[1].astype(np.float64), found[2].astype(np.float64)


def _macro_f1(guessed: Floats, expected: Floats) -> Floats:
    """Return F1, averaged over the labels that were guessed or expected."""
    found, there, right = _counts(guessed, expected)
    occurs = found + there > 0
    return np.asarray((2 * right[occurs] / (found + there)[occurs]).mean())


def matthews(guessed: Floats, expected: Floats) -> Floats:
    """Return Matthews' correlation (Gorodkin 2004); 0 where one side does not vary."""
    found, there, right = _counts(guessed, expected)
    count = guessed.size
    covariance = right.sum() * count - found @ there
    spread = (count**2 - found @ found) * (count**2 - there @ there)
    return np.asarray(covariance / np.sqrt(spread) if spread > 0 else 0.0)


def naive_labels(
    examples: Sequence[Example],  # noqa: ARG001
    observed: Floats,
    settings: Settings,
) -> Mapping[str, Floats]:
    """Return what one answer to all would be observed as, and the answers of other examples."""
    counts = np.bincount(observed[:, 0].astype(np.int64), minlength=observed.shape[1] - 1)
    constant, shuffled = observed.copy(), observed.copy()
    constant[:, 1:] = np.log((counts + 1) / (counts + 1).sum())
    shuffled[:, 1:] = np.random.default_rng(settings.seed).permutation(observed[:, 1:])
    return {"the most frequent label for all": constant, "its own answers shuffled": shuffled}


CLASSIFICATION = Task(
    name="classification",
    title="classification",
    metric="error rate",
    unit="share of examples whose likeliest label is wrong",
    head="classification",
    read=_read,
    observe=observe_logits,
    score=score_labels,
    measure=measure_labels,
    by_label=report_labels,
    further=("log-loss", f"{INVERTED}accuracy", f"{INVERTED}F1 (macro)", f"{INVERTED}Matthews"),
    whole=(f"{INVERTED}F1 (macro)", f"{INVERTED}Matthews"),
    naive=naive_labels,
    options=COLUMN_OPTIONS,
    needs="table",
)
