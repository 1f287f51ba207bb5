"""GLUE's nine tasks (Wang et al. 2019): where the data are, and what each of them reports.

Integers in the data are classes in GLUE's own order; the model's outputs are found by the names of
its labels. What a table of GLUE shows is among the further numbers.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping

import numpy as np

from surgeon.scoring.data import Names
from surgeon.scoring.tasks.classification import CLASSIFICATION, classified
from surgeon.scoring.tasks.labels import CLASSES, match_labels
from surgeon.scoring.tasks.regression import REGRESSION
from surgeon.scoring.tasks.task import Floats, Settings, Task

_HOME = "hf:nyu-mll/glue"
_ONE = Names(("sentence",), label=("label",))
_PAIR = Names(("sentence1",), ("sentence2",), ("label",))


def _accuracy(observed: Floats, settings: Settings) -> Mapping[str, float]:  # noqa: ARG001
    return {"accuracy": float((observed[:, 0] == observed[:, 1:].argmax(axis=1)).mean())}


def _matthews(observed: Floats, settings: Settings) -> Mapping[str, float]:
    from sklearn.metrics import matthews_corrcoef

    expected, guessed = observed[:, 0].astype(np.int64), observed[:, 1:].argmax(axis=1)
    score = float(matthews_corrcoef(expected, guessed))
    return {"Matthews": score, **_accuracy(observed, settings)}


def _f1(task: str, observed: Floats, settings: Settings) -> Mapping[str, float]:
    """Return F1 of the second class: the sentences mean the same."""
    from sklearn.metrics import f1_score

    classes = CLASSES[task]
    (positive,) = match_labels(classes[1:], classes, settings.labels, "GLUE")
    expected, guessed = observed[:, 0] == positive, observed[:, 1:].argmax(axis=1) == positive
    score = float(f1_score(expected, guessed, zero_division=0))
    return {"F1": score, **_accuracy(observed, settings)}


def _task(
    name: str,
    columns: Names,
    measure: Callable[[Floats, Settings], Mapping[str, float]] = _accuracy,
    split: str = "validation",
) -> Task:
    return dataclasses.replace(
        CLASSIFICATION,
        name=f"glue/{name}",
        title=f"GLUE {name}",
        read=functools.partial(classified, CLASSES[f"glue/{name}"]),
        measure=measure,
        columns=columns,
        sample=f"{_HOME}:{name}:{split}",
    )


GLUE: tuple[Task, ...] = (
    # Its own files have no header: the source, the label, the authors' mark, the sentence.
    _task("cola", Names(("sentence", "4"), label=("label", "2")), _matthews),
    _task("sst2", _ONE),
    _task("mrpc", _PAIR, functools.partial(_f1, "glue/mrpc")),
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
    ),
    _task("mnli", Names(("premise",), ("hypothesis",), ("label",)), split="validation_matched"),
    _task("qnli", Names(("question",), ("sentence",), ("label",))),
    _task("rte", _PAIR),
    _task("wnli", _PAIR),
)
