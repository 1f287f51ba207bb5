"""GLUE's nine tasks (Wang et al. 2019): where the data are, and what each of them reports.

Integers in the data are classes in GLUE's own order; the model's outputs are found by the names of
its labels. What a table of GLUE shows is among the further numbers.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping

import numpy as np

from surgeon.scoring.data import Columns
from surgeon.scoring.tasks.classification import CLASSIFICATION, classified
from surgeon.scoring.tasks.labels import match_labels
from surgeon.scoring.tasks.regression import REGRESSION
from surgeon.scoring.tasks.task import Floats, Settings, Task

_HOME = "hf:nyu-mll/glue"
_PAIR = Columns("sentence1", "sentence2", "label")
_ENTAILMENT = ("entailment", "not_entailment")


def _accuracy(observed: Floats, settings: Settings) -> Mapping[str, float]:  # noqa: ARG001
    return {"accuracy": float((observed[:, 0] == observed[:, 1:].argmax(axis=1)).mean())}


def _matthews(observed: Floats, settings: Settings) -> Mapping[str, float]:
    from sklearn.metrics import matthews_corrcoef

    expected, guessed = observed[:, 0].astype(np.int64), observed[:, 1:].argmax(axis=1)
    score = float(matthews_corrcoef(expected, guessed))
    return {"Matthews": score, **_accuracy(observed, settings)}


def _f1(classes: tuple[str, ...], observed: Floats, settings: Settings) -> Mapping[str, float]:
    """Return F1 of the second class: the sentences mean the same."""
    from sklearn.metrics import f1_score

    (positive,) = match_labels(classes[1:], classes, settings.labels, "GLUE")
    expected, guessed = observed[:, 0] == positive, observed[:, 1:].argmax(axis=1) == positive
    score = float(f1_score(expected, guessed, zero_division=0))
    return {"F1": score, **_accuracy(observed, settings)}


def _task(
    name: str,
    columns: Columns,
    classes: tuple[str, ...],
    measure: Callable[[Floats, Settings], Mapping[str, float]] = _accuracy,
    split: str = "validation",
) -> Task:
    return dataclasses.replace(
        CLASSIFICATION,
        name=f"glue/{name}",
        title=f"GLUE {name}",
        read=functools.partial(classified, classes),
        measure=measure,
        columns=columns,
        sample=f"{_HOME}:{name}:{split}",
    )


_SAME = ("not_equivalent", "equivalent")
_DUPLICATE = ("not_duplicate", "duplicate")

GLUE: tuple[Task, ...] = (
    _task("cola", Columns("sentence", label="label"), ("unacceptable", "acceptable"), _matthews),
    _task("sst2", Columns("sentence", label="label"), ("negative", "positive")),
    _task("mrpc", _PAIR, _SAME, functools.partial(_f1, _SAME)),
    dataclasses.replace(
        REGRESSION,
        name="glue/stsb",
        title="GLUE stsb",
        columns=_PAIR,
        sample=f"{_HOME}:stsb:validation",
    ),
    _task(
        "qqp",
        Columns("question1", "question2", "label"),
        _DUPLICATE,
        functools.partial(_f1, _DUPLICATE),
    ),
    _task(
        "mnli",
        Columns("premise", "hypothesis", "label"),
        ("entailment", "neutral", "contradiction"),
        split="validation_matched",
    ),
    _task("qnli", Columns("question", "sentence", "label"), _ENTAILMENT),
    _task("rte", _PAIR, _ENTAILMENT),
    _task("wnli", _PAIR, ("not_entailment", "entailment")),
)
