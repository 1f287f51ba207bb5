"""What a classifier's head gives for texts and pairs of texts: a label, or a number. GLUE too.

For labels the metric is the error rate: each example counts 1 where the likeliest label is not the
expected one. A head of one output predicts numbers, such as the similarity of two sentences, and
the metric is their squared error. Both average over examples and are larger where it is worse.

Of GLUE's nine tasks (Wang et al. 2019), integers in the data are classes in GLUE's own order; the
model's outputs are found by the names of its labels. What a table of GLUE shows is among the
further numbers, and decides if ``metric`` names it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from surgeon.tasks.examples import Encoder, Example, Prepared
from surgeon.tasks.labels import (
    CLASSES,
    count_labels,
    cross_entropy,
    detection,
    macro_f1,
    match_labels,
    matthews,
    numeric_labels,
    pearson,
    rates_by_label,
    spearman,
)
from surgeon.tasks.table import COLUMN_OPTIONS, Located, Names, locate
from surgeon.tasks.task import INVERTED, Data, Floats, Scores, Settings, Task, share_of_examples

CORRELATIONS = (f"{INVERTED}Pearson", f"{INVERTED}Spearman")
"""The metrics that are made of ``correlations``."""


def _read_labels(
    classes: tuple[str, ...], data: Data, encoder: Encoder, settings: Settings
) -> Prepared:
    """Make examples of the rows that have a label; ``classes`` are what integers stand for."""
    located = locate(data, settings.columns)
    known = located.table.classes.get(str(located.label), classes)
    numbers = match_labels(located.labels, known, settings.labels, located.table.name)
    return _read_examples(located, numbers, encoder)


def _read_numbers(data: Data, encoder: Encoder, settings: Settings) -> Prepared:
    located = locate(data, settings.columns)
    return _read_examples(located, numeric_labels(located), encoder)


def _read_examples(
    located: Located, references: Sequence[float | None], encoder: Encoder
) -> Prepared:
    """Make an example of each row that has a reference and a token of its own."""
    encoded = encoder.encode(located.texts)
    examples = tuple(
        dataclasses.replace(example, reference=reference)
        for example, reference in zip(encoded.examples, references, strict=True)
        if reference is not None and example.ids
    )
    return dataclasses.replace(encoded, examples=examples)


def _observe(logits: npt.NDArray[np.float32], example: Example) -> Floats:
    """Return what is expected and the logits, (1 + labels,)."""
    return np.array([example.reference, *logits], dtype=np.float64)


def guesses(observed: Floats) -> npt.NDArray[np.int64]:
    """Return the likeliest label's number for each example."""
    return np.asarray(observed[:, 1:].argmax(axis=1))


def measure_labels(observed: Floats, settings: Settings) -> Mapping[str, Scores]:
    """Return the scores of labels, the log-loss in nats among them.

    F1 is averaged over the labels that occur.
    """
    expected, guessed = observed[:, 0], guesses(observed).astype(np.float64)
    right = (guessed == expected).astype(np.float64)
    losses = cross_entropy(observed[:, 1:], expected.astype(np.int64))
    return {
        "error rate": share_of_examples(1 - right),
        "log-loss": Scores(losses, np.ones_like(losses)),
        "accuracy": share_of_examples(right),
        "F1 (macro)": Scores(guessed, expected, macro_f1),
        "Matthews": Scores(guessed, expected, matthews),
    }


def _by_label(observed: Floats, settings: Settings) -> Mapping[str, Mapping[str, float]]:
    counts = count_labels(guesses(observed), observed[:, 0], len(settings.labels))
    return rates_by_label(settings.labels, *counts)


def _naive_labels(
    examples: Sequence[Example], observed: Floats, settings: Settings
) -> Mapping[str, Floats]:
    counts = np.bincount(observed[:, 0].astype(np.int64), minlength=observed.shape[1] - 1)
    constant = np.log((counts + 1) / (counts + 1).sum())
    return _naive("the most frequent label for all", constant, observed, settings)


def naive_numbers(
    examples: Sequence[Example], observed: Floats, settings: Settings
) -> Mapping[str, Floats]:
    """Return what the mean for all would be observed as, and the answers to other examples."""
    return _naive("the mean for all", observed[:, 0].mean(), observed, settings)


def _naive(
    name: str, answer: npt.ArrayLike, observed: Floats, settings: Settings
) -> Mapping[str, Floats]:
    """Return what one answer to all would be observed as, and the answers of other examples."""
    constant, shuffled = observed.copy(), observed.copy()
    constant[:, 1:] = answer
    shuffled[:, 1:] = np.random.default_rng(settings.seed).permutation(observed[:, 1:])
    return {name: constant, "its own answers shuffled": shuffled}


def correlations(observed: Floats, settings: Settings) -> Mapping[str, Scores]:
    """Return Pearson's and Spearman's correlation of what is expected and what is predicted.

    ``observed`` has both, (examples, 2).
    """
    expected, predicted = observed.T
    return {
        "Pearson": Scores(predicted, expected, pearson),
        "Spearman": Scores(predicted, expected, spearman),
    }


def _measure_numbers(observed: Floats, settings: Settings) -> Mapping[str, Scores]:
    expected, predicted = observed.T
    error = Scores((predicted - expected) ** 2, np.ones_like(expected))
    return {"squared error": error, **correlations(observed, settings)}


CLASSIFICATION = Task(
    name="classification",
    title="classification",
    metric="error rate",
    unit="share of examples whose likeliest label is wrong",
    heads=("classification",),
    reader=functools.partial(_read_labels, ()),
    observe=_observe,
    measure=measure_labels,
    by_label=_by_label,
    further=("log-loss", f"{INVERTED}accuracy"),
    whole=(f"{INVERTED}F1 (macro)", f"{INVERTED}Matthews"),
    naive=_naive_labels,
    options=COLUMN_OPTIONS,
)
REGRESSION = Task(
    name="regression",
    title="regression",
    metric="squared error",
    unit="mean of the squared difference from the label",
    heads=("classification",),
    reader=_read_numbers,
    observe=_observe,
    measure=_measure_numbers,
    whole=CORRELATIONS,
    naive=naive_numbers,
    options=COLUMN_OPTIONS,
    numeric=True,
)


def _measure(
    task: str, official: str | None, observed: Floats, settings: Settings
) -> Mapping[str, Scores]:
    """Return the scores that GLUE reports; F1 is that of the second class: they mean the same."""
    scores = dict(measure_labels(observed, settings))
    if official == "F1":
        classes = CLASSES[task]
        (positive,) = match_labels(classes[1:], classes, settings.labels, "GLUE")
        found, there = guesses(observed) == positive, observed[:, 0] == positive
        counts = (found & there, found, there)
        scores["F1"] = detection(*(count.astype(np.float64) for count in counts))["F1"]
    names = ("error rate", "log-loss", official, "accuracy")
    return {name: scores[name] for name in names if name is not None}


def _task(
    name: str, columns: Names, official: str | None = None, split: str = "validation"
) -> Task:
    task = f"glue/{name}"
    return dataclasses.replace(
        CLASSIFICATION,
        name=task,
        title=f"GLUE {name}",
        reader=functools.partial(_read_labels, CLASSES[task]),
        measure=functools.partial(_measure, task, official),
        whole=(f"{INVERTED}{official}",) if official else (),
        columns=columns,
        sample=f"hf:nyu-mll/glue:{name}:{split}",
    )


_PAIR = Names(("sentence1",), ("sentence2",), ("label",))
GLUE: tuple[Task, ...] = (
    # Its own files have no header: the source, the label, the authors' mark, the sentence.
    _task("cola", Names(("sentence", "4"), label=("label", "2")), "Matthews"),
    _task("sst2", Names(("sentence",), label=("label",))),
    _task("mrpc", _PAIR, "F1"),
    dataclasses.replace(
        REGRESSION,
        name="glue/stsb",
        title="GLUE stsb",
        columns=_PAIR,
        sample="hf:nyu-mll/glue:stsb:validation",
    ),
    _task("qqp", Names(("question1",), ("question2",), ("label",)), "F1"),
    _task("mnli", Names(("premise",), ("hypothesis",), ("label",)), split="validation_matched"),
    _task("qnli", Names(("question",), ("sentence",), ("label",))),
    _task("rte", _PAIR),
    _task("wnli", _PAIR),
)
