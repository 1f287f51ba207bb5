"""What a task is, the scores it gives per example, and how variants of a model are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from surgeon.errors import SurgeonError
from surgeon.tasks.configuration import Pooling
from surgeon.tasks.examples import Encoder, Example, Prepared
from surgeon.tasks.table import Columns, Names, Table
from surgeon.text import Texts

Floats: TypeAlias = npt.NDArray[np.float64]
TaskName: TypeAlias = Literal[
    "mlm", "clm", "rtd", "plm", "denoising", "classification", "token-classification",
    "question-answering", "drift",
]  # fmt: skip
"""What the head of a model is for, and so what its graph can be scored on."""

Masking: TypeAlias = Literal["all", "bert"]
Data: TypeAlias = Texts | Table
Statistic: TypeAlias = Callable[[Floats, Floats], Floats]

MARGIN = 0.02
"""The smallest change of a metric that matters, where nothing else is asked for.

Two points of an error rate, 2% of a perplexity, a cosine of 0.98.
"""

SHARE = (-1.0, 1.0)
"""How far two shares can be apart: the bounds of a rate's change."""

INVERTED = "1 − "
"""What the name of a metric begins with that is larger where it is worse."""


@dataclass(frozen=True)
class Settings:
    """What the user sets and a task may use, and what it must know of the model.

    Attributes:
        seed: of all that is drawn.
        mask_rate: the share of tokens that are hidden or replaced.
        mask_id: the tokenizer's mask token, if it has one.
        special_ids: its special tokens.
        sentinels: those of them that each stand for one span of a text, in order, as T5's do.
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
        model_type: the architecture, as config.json calls it.
        pooling: how token vectors become the vector of a sentence.
    """

    seed: int
    mask_rate: float
    mask_id: int | None
    special_ids: tuple[int, ...]
    sentinels: tuple[int, ...] = ()
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
    model_type: str = ""
    pooling: Pooling | None = None


def ratio_of_sums(total: Floats, weight: Floats) -> Floats:
    """Return the ratio of the sums over the last axis, which has the examples."""
    ratio: Floats = total.sum(axis=-1) / weight.sum(axis=-1)
    return ratio


@dataclass(frozen=True, eq=False)
class Scores:
    """One metric: two numbers per example, and what a set of examples makes of them.

    By default the score is the ratio of the sums: for a loss, ``total`` is the summed nats and
    ``weight`` the number of scored tokens. For a score that no sum gives, ``statistic`` maps both
    to it: of a rank correlation, ``total`` is what was predicted and ``weight`` what was expected.
    Each has shape (examples,), or ``total`` several columns, (examples, columns), and ``weight`` is
    the same for every variant. ``bounds`` are the least and the most by which a total can differ
    from the baseline's, per unit of weight, where there are such.
    """

    total: Floats
    weight: Floats
    statistic: Statistic = ratio_of_sums
    bounds: tuple[float, float] | None = None

    @property
    def value(self) -> float:
        """The score of the whole set."""
        return float(self.statistic(self.total, self.weight))


def share_of_examples(values: Floats) -> Scores:
    """Return the scores of what each example has from 0 to 1, such as whether it is right."""
    return Scores(values, np.ones_like(values), bounds=SHARE)


def one_minus(scores: Scores) -> Scores:
    """Return a score that is larger where it is worse, of one that is larger where it is better."""
    if scores.statistic is ratio_of_sums:
        return Scores(scores.weight - scores.total, scores.weight, bounds=scores.bounds)
    statistic = scores.statistic
    return Scores(scores.total, scores.weight, lambda total, weight: 1 - statistic(total, weight))


@dataclass(frozen=True)
class Task:
    """A way to score a model.

    Attributes:
        name: what the record and ``eval`` call it.
        title: the same for people.
        metric: the score that the verdict is about where nothing else is asked for; larger is
            worse.
        unit: of the metric.
        heads: what the model's head must be for, one of them.
        observe: reduces the output of one example to what is kept of it: (tokens, width), with a
            leading axis where the example has several sequences or the graph several outputs.
        measure: maps the observations of a variant, (examples, kept), to its scores by name.
        prepare: makes an example of one token sequence, None where it has nothing to score; None
            for a task on labelled data.
        reader: makes examples of the data (None: ``prepare`` does, of each text or block).
        by_label: numbers of each label apart: {label: {number: value}}, such as its recall.
        further: other metrics that the verdict may be about (``metric``), larger being worse;
            "1 − …" is made of a score that is larger where it is better.
        whole: more such metrics, which are scores of the whole set: no sum over examples gives
            them.
        naive: what predictors without skill would be observed to do, by their names, from the
            examples and the baseline's observations: a constant answer, the baseline's own answers
            to other examples. A verdict takes a baseline that is better.
        against: makes of the observations of a variant and of the baseline what is kept of them,
            for a score that is about the two.
        reduce: what ``observe`` does, from the losses in nats and the hits, each (scored,), of an
            example whose tokens were scored inside the graph; None for a task that is not about
            choosing tokens.
        options: the user's options that it uses, and their defaults.
        columns: what its data sets call the columns, where the user names none.
        sample: the data set of the Hub to take where none is named; None for English sentences,
            or for no data at all where a table is needed.
        numeric: whether it takes a classifier's head of one output, which is a number.
        sides: whether its texts are of two sides, source and target, tokenized as in training.
    """

    name: str
    title: str
    metric: str
    unit: str
    heads: tuple[TaskName, ...]
    observe: Callable[[npt.NDArray[np.float32], Example], Floats]
    measure: Callable[[Floats, Settings], Mapping[str, Scores]]
    prepare: Callable[[tuple[int, ...], Settings], Example | None] | None = None
    reader: Callable[[Data, Encoder, Settings], Prepared] | None = None
    by_label: Callable[[Floats, Settings], Mapping[str, Mapping[str, float]]] = lambda *_: {}
    further: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    naive: Callable[[Sequence[Example], Floats, Settings], Mapping[str, Floats]] = lambda *_: {}
    against: Callable[[Floats, Floats], Floats] = lambda observed, _: observed
    reduce: Callable[[Floats, Floats, Example], Floats] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    columns: Names = field(default_factory=Names)
    sample: str | None = None
    numeric: bool = False
    sides: bool = False

    @property
    def metrics(self) -> tuple[str, ...]:
        """All that the verdict may be about, the one that decides first."""
        return tuple(dict.fromkeys((self.metric, *self.further, *self.whole)))

    @property
    def rows(self) -> str:
        """The rows that it takes, for people."""
        names = (self.columns.text, self.columns.pair, self.columns.label)
        usual = " and ".join(name[0] for name in names if name)
        return f"labelled rows, with columns such as {usual}" if usual else "labelled rows"

    @property
    def needs_table(self) -> bool:
        """Whether the data are rows of named values, and not texts alone."""
        return self.prepare is None

    def read(self, data: Data, encoder: Encoder, settings: Settings) -> Prepared:
        """Make examples of the data.

        A text is cut to the model's length, and left out if there is nothing to score in it.
        """
        if self.reader is not None:
            return self.reader(data, encoder, settings)
        texts, block = data.lines, settings.block
        encoded = encoder.encode(texts) if block is None else encoder.cut_in_blocks(texts, block)
        assert self.prepare is not None
        examples = []
        for whole in encoded.examples:
            example = self.prepare(whole.ids, settings)
            if example is not None:
                types = whole.types if len(example.ids) == len(whole.types) else example.types
                examples.append(replace(example, types=types))
        return replace(encoded, examples=tuple(examples))

    def scores(self, observed: Floats, settings: Settings) -> dict[str, Scores]:
        """Return all scores of a variant by name, the one that decides among them."""
        found = dict(self.measure(observed, settings))
        if self.metric not in found:
            name = self.metric.removeprefix(INVERTED)
            found = {self.metric: one_minus(found[name]), **found} if name in found else found
        return found


BatchScores: TypeAlias = tuple[Sequence[int], Iterable[Floats]]
"""The numbers of a batch's examples, and what the task keeps of each, (kept,)."""


@dataclass(frozen=True)
class Variant:
    """One model of a comparison; ``dims`` are those edited in it, none in the baseline."""

    name: str
    dims: tuple[int, ...]


BASELINE = Variant("baseline", ())


class Runner(Protocol):
    """Runs examples through any variant of one model: on onnxruntime, or in PyTorch."""

    @property
    def task(self) -> Task:
        """What the outputs are scored on."""

    def run(self, variant: Variant, examples: Sequence[Example]) -> Iterator[BatchScores]:
        """Yield the examples batch by batch, in any order."""

    def not_finite(self, variant: Variant) -> SurgeonError:
        """Return the error for a variant whose output is not finite, with the cause if known."""


def compare_variants(
    runner: Runner,
    examples: Sequence[Example],
    variants: Iterable[Variant],
    baseline: Floats | None = None,
) -> Iterator[Floats]:
    """Yield what the task keeps of every example, (examples, kept), for one variant after another.

    Args:
        runner: what runs them.
        examples: the same for every variant.
        variants: what to compare.
        baseline: what ``observe`` gave for these examples in the baseline (None: run it first).

    Raises:
        SurgeonError: a variant's output is not finite.
    """
    reference = observe(runner, BASELINE, examples) if baseline is None else baseline
    for variant in variants:
        observed = observe(runner, variant, examples) if variant.dims else reference
        yield runner.task.against(observed, reference)


def observe(runner: Runner, variant: Variant, examples: Sequence[Example]) -> Floats:
    """Return what the task observes of every example in one variant, (examples, observed).

    Raises:
        SurgeonError: its output is not finite.
    """
    rows: dict[int, Floats] = {}
    with np.errstate(all="ignore"):  # what is not finite is an error below
        for numbers, observed in runner.run(variant, examples):
            rows.update(zip(numbers, observed, strict=True))
    found: Floats = np.stack([rows[number] for number in range(len(examples))])
    if not np.isfinite(found).all():
        raise runner.not_finite(variant)
    return found
