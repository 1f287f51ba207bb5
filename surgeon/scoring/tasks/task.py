"""What a task is, and the scores it gives per example."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from surgeon.scoring.examples import Example

Floats: TypeAlias = npt.NDArray[np.float64]
TaskName: TypeAlias = Literal[
    "mlm",
    "clm",
    "rtd",
    "plm",
    "denoising",
    "classification",
    "token-classification",
    "question-answering",
    "drift",
]


@dataclass(frozen=True)
class Settings:
    """What the user sets and a task may use.

    ``mask_id`` and ``special_ids`` are the tokenizer's, ``mask_rate`` the share of tokens masked.
    """

    seed: int
    mask_rate: float
    mask_id: int | None
    special_ids: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Scores:
    """One metric, per example: the score of a set is the ratio of the sums.

    ``total`` and ``weight`` have shape (examples,): for a loss, the summed nats and the number of
    scored tokens.
    """

    total: Floats
    weight: Floats

    @property
    def value(self) -> float:
        """The score of the whole set."""
        return float(self.total.sum() / self.weight.sum())


@dataclass(frozen=True)
class Task:
    """A way to score a model.

    Attributes:
        name: what the record and ``eval`` call it.
        title: the same for people.
        metric: the score that the verdict is about; larger is worse.
        unit: of the metric.
        prepare: makes an example of a token sequence; None where it has nothing to score.
        observe: reduces the output of one example, (tokens, width), to what is kept of it.
        reduce: does the same from the losses in nats and the hits, each (scored,), of an example
            whose tokens were scored inside the graph; None for a task that is not about tokens.
        score: maps the observations of a variant and of the baseline, (examples, kept), to
            metrics, ``metric`` first.
        derive: further numbers from the metrics' values, such as the perplexity.
    """

    name: TaskName
    title: str
    metric: str
    unit: str
    prepare: Callable[[tuple[int, ...], Settings], Example | None]
    observe: Callable[[npt.NDArray[np.float32], Example], Floats]
    score: Callable[[Floats, Floats], Mapping[str, Scores]]
    derive: Callable[[Mapping[str, float]], Mapping[str, float]]
    reduce: Callable[[Floats, Floats], Floats] | None = None
