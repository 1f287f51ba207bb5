"""Classification of texts and of pairs of texts, by any labelled data.

The metric is the error rate: each example counts 1 where the likeliest label is not the expected
one, so that it averages over examples and larger is worse. Accuracy, F1, Matthews' correlation and
the log-loss come beside it.
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
from surgeon.scoring.tasks.task import Data, Floats, Scores, Settings, Task

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
    logits, ones = observed[:, 1:], np.ones(len(observed))
    wrong = (logits.argmax(axis=1) != labels).astype(np.float64)
    losses = -log_softmax(logits, axis=1)[np.arange(len(labels)), labels]
    return {"error rate": Scores(wrong, ones), "log-loss": Scores(losses, ones)}


def measure_labels(observed: Floats, settings: Settings) -> Mapping[str, float]:  # noqa: ARG001
    """Return accuracy, F1 averaged over the labels that occur, and Matthews' correlation."""
    from sklearn import metrics

    expected, guessed = observed[:, 0].astype(np.int64), observed[:, 1:].argmax(axis=1)
    return {
        "accuracy": float(metrics.accuracy_score(expected, guessed)),
        "F1 (macro)": float(metrics.f1_score(expected, guessed, average="macro")),
        "Matthews": float(metrics.matthews_corrcoef(expected, guessed)),
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
    options=COLUMN_OPTIONS,
    needs="table",
)
