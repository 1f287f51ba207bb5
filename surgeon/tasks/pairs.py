"""Minimal pairs: is the good sentence likelier than the bad one (Warstadt et al. 2020, BLiMP)?

The metric is the share of pairs in which it is not. A causal model's log-probability is the sum
over a sentence's tokens. A masked model's is the pseudo-log-likelihood: the sum over its tokens,
each hidden alone (Salazar et al. 2020, section 2).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from surgeon.tasks.causal import FIRST_NOT_SCORED, predict_next
from surgeon.tasks.examples import Encoder, Example, Prepared
from surgeon.tasks.masked import mask_id_of
from surgeon.tasks.sequences import ordinary_places, token_losses
from surgeon.tasks.table import Names, locate
from surgeon.tasks.task import INVERTED, Data, Floats, Scores, Settings, Task, share_of_examples


def _read(data: Data, encoder: Encoder, settings: Settings) -> Prepared:
    located = locate(data, settings.columns, pair=True, label=False)
    encoded = encoder.encode([sentence for pair in located.pairs for sentence in pair])
    ask = _each_after_those_before
    if settings.head == "mlm":
        ask = _hidden_one_by_one
        ordinary = tuple(set(settings.special_ids) - {encoder.unknown_id})
        settings = dataclasses.replace(settings, special_ids=ordinary)
    sequences = [example.ids for example in encoded.examples]
    goods, bads = sequences[::2], sequences[1::2]
    examples, same = [], 0
    for first, second in zip(goods, bads, strict=True):
        same += bool(first) and first == second
        good, bad = ask(first, settings), ask(second, settings)
        if good and bad and first != second:
            scored = sum(sequence.labels.size for sequence in good)
            further = (*good[1:], *bad)
            examples.append(dataclasses.replace(good[0], further=further, reference=scored))
    notes = [*located.notes]
    if same:
        notes.append(f"left out, because the tokenizer reads both sentences as the same: {same}")
    if settings.head == "clm" and not encoder.frame_of(located.table.texts(located.text)).before:
        notes.append(FIRST_NOT_SCORED)
    return dataclasses.replace(
        encoded, examples=tuple(examples), given=len(goods), unit="pairs", notes=tuple(notes)
    )


def _each_after_those_before(ids: tuple[int, ...], settings: Settings) -> tuple[Example, ...]:
    example = predict_next(ids, settings)
    return () if example is None else (example,)


def _hidden_one_by_one(ids: tuple[int, ...], settings: Settings) -> tuple[Example, ...]:
    hidden = mask_id_of(settings)
    return tuple(
        Example(
            (*ids[:place], hidden, *ids[place + 1 :]), np.array([place]), np.array([ids[place]])
        )
        for place in ordinary_places(np.array(ids, dtype=np.int64), settings)
    )


def _observe(logits: npt.NDArray[np.float32], example: Example) -> Floats:
    return _reduce(*token_losses(logits, example), example)


def _reduce(losses: Floats, hits: Floats, example: Example) -> Floats:
    """Return the log-probabilities of the good and of the bad sentence, in nats."""
    good = int(example.reference)
    return np.array([-losses[:good].sum(), -losses[good:].sum()])


def _measure(observed: Floats, settings: Settings) -> Mapping[str, Scores]:
    good, bad = observed.T
    right = (good > bad).astype(np.float64)
    return {
        "error rate": share_of_examples(1 - right),
        "accuracy": share_of_examples(right),
        "log-odds": Scores(good - bad, np.ones_like(good)),
    }


def _naive(
    examples: Sequence[Example], observed: Floats, settings: Settings
) -> Mapping[str, Floats]:
    """Return what a coin would be observed to choose."""
    coin = np.random.default_rng(settings.seed).permutation(len(examples)) % 2
    return {"a coin": np.stack([coin.astype(np.float64), np.full(len(observed), 0.5)], axis=1)}


PAIRS = Task(
    name="pairs",
    title="minimal pairs",
    metric="error rate",
    unit="share of pairs in which the good sentence is not the likelier one",
    heads=("clm", "mlm"),
    reader=_read,
    observe=_observe,
    measure=_measure,
    further=(f"{INVERTED}accuracy",),
    naive=_naive,
    reduce=_reduce,
    options={"bos": None, "text_column": None, "pair_column": None},
    columns=Names(("sentence_good", "good"), ("sentence_bad", "bad")),
)
