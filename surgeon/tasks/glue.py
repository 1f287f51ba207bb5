"""GLUE's nine tasks (Wang et al. 2019): where the data are, and what each of them reports.

Integers in the data are classes in GLUE's own order; the model's outputs are found by the names of
its labels. What a table of GLUE shows is among the further numbers, and decides if ``metric``
names it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np

from surgeon.tasks.classification import (
    CLASSIFICATION,
    REGRESSION,
    guesses,
    measure_labels,
    read_labels,
)
from surgeon.tasks.labels import CLASSES, match_labels
from surgeon.tasks.metrics import detection
from surgeon.tasks.table import Names
from surgeon.tasks.task import INVERTED, Floats, Scores, Settings, Task


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
    task, whole = f"glue/{name}", (f"{INVERTED}{official}",) if official else ()
    return dataclasses.replace(
        CLASSIFICATION,
        name=task,
        title=f"GLUE {name}",
        read=functools.partial(read_labels, CLASSES[task]),
        measure=functools.partial(_measure, task, official),
        further=("log-loss", f"{INVERTED}accuracy", *whole),
        whole=whole,
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
