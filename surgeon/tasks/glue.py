"""GLUE's nine tasks (Wang et al. 2019): where the data are, and what each of them reports.

Integers in the data are classes in GLUE's own order; the model's outputs are found by the names of
its labels. What a table of GLUE shows is among the further numbers, and decides if ``--metric``
names it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping

import numpy as np

from surgeon.tasks.classification import (
    CLASSES,
    CLASSIFICATION,
    classified,
    guesses,
    match_labels,
    matthews,
    measure_accuracy,
    score_labels,
)
from surgeon.tasks.columns import Names
from surgeon.tasks.regression import REGRESSION
from surgeon.tasks.task import (
    INVERTED,
    Floats,
    Scores,
    Settings,
    Task,
)

_HOME = "hf:nyu-mll/glue"
_ONE = Names(("sentence",), label=("label",))
_PAIR = Names(("sentence1",), ("sentence2",), ("label",))


def _accuracy(observed: Floats, settings: Settings) -> Mapping[str, Scores]:  # noqa: ARG001
    return {**score_labels(observed), **measure_accuracy(observed)}


def _matthews(observed: Floats, settings: Settings) -> Mapping[str, Scores]:  # noqa: ARG001
    guessed = guesses(observed).astype(np.float64)
    return {
        **score_labels(observed),
        "Matthews": Scores(guessed, observed[:, 0], matthews),
        **measure_accuracy(observed),
    }


def _f1(task: str, observed: Floats, settings: Settings) -> Mapping[str, Scores]:
    """Return F1 of the second class: the sentences mean the same."""
    classes = CLASSES[task]
    (positive,) = match_labels(classes[1:], classes, settings.labels, "GLUE")
    expected, guessed = observed[:, 0] == positive, guesses(observed) == positive
    score = Scores(guessed.astype(np.float64), expected.astype(np.float64), _f1_of_ones)
    return {**score_labels(observed), "F1": score, **measure_accuracy(observed)}


def _f1_of_ones(guessed: Floats, expected: Floats) -> Floats:
    return np.asarray(2 * (guessed @ expected) / max(1.0, guessed.sum() + expected.sum()))


def _task(
    name: str,
    columns: Names,
    measure: Callable[[Floats, Settings], Mapping[str, Scores]] = _accuracy,
    split: str = "validation",
    *,
    official: str | None = None,
) -> Task:
    whole = (f"{INVERTED}{official}",) if official else ()
    return dataclasses.replace(
        CLASSIFICATION,
        name=f"glue/{name}",
        title=f"GLUE {name}",
        read=functools.partial(classified, CLASSES[f"glue/{name}"]),
        measure=measure,
        further=("log-loss", f"{INVERTED}accuracy", *whole),
        whole=whole,
        columns=columns,
        sample=f"{_HOME}:{name}:{split}",
    )


GLUE: tuple[Task, ...] = (
    # Its own files have no header: the source, the label, the authors' mark, the sentence.
    _task("cola", Names(("sentence", "4"), label=("label", "2")), _matthews, official="Matthews"),
    _task("sst2", _ONE),
    _task("mrpc", _PAIR, functools.partial(_f1, "glue/mrpc"), official="F1"),
    dataclasses.replace(
        REGRESSION,
        name="glue/stsb",
        title="GLUE stsb",
        columns=_PAIR,
        sample=f"{_HOME}:stsb:validation",
    ),
    _task(
        "qqp",
        Names(("question1",), ("question2",), ("label",)),
        functools.partial(_f1, "glue/qqp"),
        official="F1",
    ),
    _task("mnli", Names(("premise",), ("hypothesis",), ("label",)), split="validation_matched"),
    _task("qnli", Names(("question",), ("sentence",), ("label",))),
    _task("rte", _PAIR),
    _task("wnli", _PAIR),
)
