"""What a task is, and the scores it gives per example."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from surgeon.scoring.data import Columns, Names, Table
from surgeon.scoring.encoder import Encoder, Prepared
from surgeon.scoring.examples import Example
from surgeon.scoring.pooling import Pooling
from surgeon.text import Texts

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
"""What the head of a model is for, and so what its graph can be scored on."""

Masking: TypeAlias = Literal["all", "bert"]
Data: TypeAlias = Texts | Table
Statistic: TypeAlias = Callable[[Floats, Floats], Floats]


@dataclass(frozen=True)
class Settings:
    """What the user sets and a task may use, and what it must know of the model.

    Attributes:
        seed: of all that is drawn.
        mask_rate: the share of tokens that are hidden or replaced.
        mask_id: the tokenizer's mask token, if it has one.
        special_ids: its special tokens.
        vocabulary: the number of its tokens.
        masking: what hides a token: always the mask token, or in 80 of 100 cases.
        block: the tokens of each piece of the corpus (None: each text is one).
        stride: the tokens by which windows over a long text move (None: half a window).
        bos: the token that is put before each text in place of the tokenizer's own special ones.
        document: whether a text file is one text.
        columns: where a table has the texts and the labels.
        labels: the model's, in the order of its outputs.
        head: what the head of the model is for.
        decoder_start_id: the token that a decoder's input begins with.
        pooling: how token vectors become the vector of a sentence.
    """

    seed: int
    mask_rate: float
    mask_id: int | None
    special_ids: tuple[int, ...]
    vocabulary: int = 0
    masking: Masking = "all"
    block: int | None = None
    stride: int | None = None
    bos: int | None = None
    document: bool = False
    columns: Columns = field(default_factory=Columns)
    labels: tuple[str, ...] = ()
    head: TaskName | None = None
    decoder_start_id: int | None = None
    pooling: Pooling | None = None


def ratio_of_sums(total: Floats, weight: Floats) -> Floats:
    """Return the ratio of the sums over the last axis, which has the examples."""
    ratio: Floats = total.sum(axis=-1) / weight.sum(axis=-1)
    return ratio


@dataclass(frozen=True, eq=False)
class Scores:
    """One metric: two numbers per example, and what a set of examples makes of them.

    By default the score is the ratio of the sums: for a loss, ``total`` is the summed nats and
    ``weight`` the number of scored tokens. For a score that no sum gives, ``statistic`` maps both,
    (…, examples), to scores, (…): of a rank correlation, ``total`` is what was predicted and
    ``weight`` what was expected. Each has shape (examples,), and ``weight`` is the same for every
    variant.
    """

    total: Floats
    weight: Floats
    statistic: Statistic = ratio_of_sums

    @property
    def value(self) -> float:
        """The score of the whole set."""
        return float(self.statistic(self.total, self.weight))


def nothing_further(*given: Any) -> Mapping[str, Any]:  # noqa: ARG001
    """Return no further numbers."""
    return {}


@dataclass(frozen=True)
class Task:
    """A way to score a model.

    Attributes:
        name: what the record and ``eval`` call it.
        title: the same for people.
        metric: the score that the verdict is about; larger is worse.
        unit: of the metric.
        head: what the model's head must be for.
        read: makes examples of the data.
        observe: reduces the output of one example to what is kept of it: (tokens, width), with a
            leading axis where the example has several sequences or the graph several outputs.
        score: maps the observations of a variant and of the baseline, (examples, kept), to
            metrics, ``metric`` first.
        prepare: makes an example of one token sequence, None where it has nothing to score; None
            for a task on labelled data.
        derive: further numbers from the metrics' values, such as the perplexity.
        measure: further numbers of a variant from its observations, such as F1.
        by_label: the same of each label apart: {label: {number: value}}, such as its recall.
        reduce: what ``observe`` does, from the losses in nats and the hits, each (scored,), of an
            example whose tokens were scored inside the graph; None for a task that is not about
            choosing tokens.
        options: the user's options that it uses, and their defaults.
        needs: whether the data are texts or a table.
        columns: what its data sets call the columns, where the user names none.
        sample: the data set of the Hub to take where none is named; None for English sentences,
            or for no data at all where a table is needed.
        averages: whether the metric is a ratio of sums over the examples.
        other_heads: further heads that it takes, beside ``head``.
        numeric: whether it takes a classifier's head of one output, which is a number.
    """

    name: str
    title: str
    metric: str
    unit: str
    head: TaskName
    read: Callable[[Data, Encoder, Settings], Prepared]
    observe: Callable[[npt.NDArray[np.float32], Example], Floats]
    score: Callable[[Floats, Floats], Mapping[str, Scores]]
    prepare: Callable[[tuple[int, ...], Settings], Example | None] | None = None
    derive: Callable[[Mapping[str, float]], Mapping[str, float]] = nothing_further
    measure: Callable[[Floats, Settings], Mapping[str, float]] = nothing_further
    by_label: Callable[[Floats, Settings], Mapping[str, Mapping[str, float]]] = nothing_further
    reduce: Callable[[Floats, Floats, Example], Floats] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    needs: Literal["texts", "table"] = "texts"
    columns: Names = field(default_factory=Names)
    sample: str | None = None
    averages: bool = True
    other_heads: tuple[TaskName, ...] = ()
    numeric: bool = False

    def takes(self, head: TaskName) -> bool:
        """Whether the task scores what a head of this kind gives."""
        return head in (self.head, *self.other_heads)
