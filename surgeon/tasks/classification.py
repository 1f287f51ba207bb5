"""Classification of texts and of pairs of texts, by any labelled data.

The metric is the error rate: each example counts 1 where the likeliest label is not the expected
one, so that it averages over examples and larger is worse. Accuracy, F1, Matthews' correlation and
the log-loss come beside it, and ``--metric`` lets one of them decide.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from surgeon.errors import EvaluationError
from surgeon.tasks.columns import Located, Table, locate
from surgeon.tasks.examples import Encoder, Example, Prepared
from surgeon.tasks.task import (
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


def score_labels(observed: Floats) -> Mapping[str, Scores]:
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
    """Return all scores: F1 is averaged over the labels that occur."""
    guessed = guesses(observed).astype(np.float64)
    return {
        **score_labels(observed),
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
    measure=measure_labels,
    by_label=report_labels,
    further=("log-loss", f"{INVERTED}accuracy", f"{INVERTED}F1 (macro)", f"{INVERTED}Matthews"),
    whole=(f"{INVERTED}F1 (macro)", f"{INVERTED}Matthews"),
    naive=naive_labels,
    options=COLUMN_OPTIONS,
    needs="table",
)


_PLAIN = re.compile(r"LABEL_(\d+)", re.IGNORECASE)
_NAMED = 10  # labels that an error lists,
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


def is_empty(value: Any) -> bool:
    """Whether a cell holds nothing, as a table of any format may say it."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def is_missing(value: Any, labels: Sequence[str] = ()) -> bool:
    """Whether data have this where there is no label: nothing, "-", -1 or -100.

    A number may be written as text. What the model has among its ``labels`` is a label.
    """
    number = _integer(value)
    if value == "-" or number in (_MISSING, _IGNORED):
        return str(value if number is None else number) not in labels
    return is_empty(value)


def match_labels(
    values: Sequence[Any], classes: Sequence[str], labels: Sequence[str], source: str
) -> list[int]:
    """Return the number of the model's output that each label of the data stands for.

    Names are compared without case, blanks, hyphens and underscores. Where the model's labels are
    the plain LABEL_0, LABEL_1, …, integers are the outputs' own numbers, and names are counted in
    the order of ``classes``.

    Args:
        values: the labels, as the data have them: names or integers.
        classes: what integers stand for in the data, in order; empty where nothing is known.
        labels: the model's, in the order of its outputs.
        source: how an error names the data.

    Raises:
        EvaluationError: the model has no such label, or one is no name or number.
    """
    outputs = {_folded(label): number for number, label in enumerate(labels)}
    plain = all(_PLAIN.fullmatch(label) for label in labels)
    names = {_folded(name): number for number, name in enumerate(classes)}
    for value in values:
        if isinstance(value, (list, dict)):
            raise EvaluationError(
                f"--data {source}: the label {value} is no name or number; name the column that "
                "has one label for each row with --label-column"
            )
    found: dict[Any, int | None] = {}
    for value in dict.fromkeys(values):
        number = _integer(value)
        if number is not None and not plain:
            known = 0 <= number < len(classes)
            names_of_it = [classes[number]] if known else [value, number]  # 5.0 too is the 5
            name = next((n for n in map(_folded, names_of_it) if n in outputs), "")
        elif number is not None:
            name = f"label{number}"
        elif plain and _folded(value) in names:
            name = f"label{names[_folded(value)]}"
        else:
            name = _folded(value)
        found[value] = outputs.get(name)
    unknown = [value for value, number in found.items() if number is None]
    if unknown:
        there = sorted(_shown(value, classes) for value in found)
        raise EvaluationError(
            f"--data {source}: the label {_shown(unknown[0], classes)} is none of the model's; "
            f"the data have {_some(there)} and the model {_some(labels)}; "
            f"{_way_on(unknown[0], labels)}"
        )
    return [number for value in values if (number := found[value]) is not None]


def _way_on(unknown: Any, labels: Sequence[str]) -> str:
    names = {_folded(label) for label in labels}
    tasks = [task for task, classes in CLASSES.items() if set(map(_folded, classes)) == names]
    if _integer(unknown) is None:
        return "use the names in id2label of config.json"
    if tasks:
        return f"if they are GLUE's numbers, name the task: --task {' or '.join(tasks)}"
    return "use the names in id2label of config.json in place of the numbers"


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    listed = ", ".join(
        name if len(name) <= _LONG else f"{name[:_LONG]}…" for name in names[:_NAMED]
    )
    return f"{listed} and {more} more" if more > 0 else listed


def _folded(label: Any) -> str:
    return re.sub(r"[\s_]+|(?<!^)-+", "", str(label)).casefold()  # -1 is not 1


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
