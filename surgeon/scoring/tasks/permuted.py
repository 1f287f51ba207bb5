"""Permutation language modelling: the loss on tokens in a random order (Yang et al. 2019, 2.2).

A share of the tokens is asked for, each given all that are not asked for, those before it in the
order that was drawn, and its own place.
"""

from __future__ import annotations

import functools

import numpy as np

from surgeon.scoring.examples import Example
from surgeon.scoring.tasks.drawing import generator_for, ordinary_places, share_of
from surgeon.scoring.tasks.language_model import (
    naive_tokens,
    observe_tokens,
    perplexity,
    reduce_tokens,
    score_tokens,
)
from surgeon.scoring.tasks.sequences import TEXT_OPTIONS, read_sequences
from surgeon.scoring.tasks.task import INVERTED, Settings, Task


def permute(ids: tuple[int, ...], settings: Settings) -> Example | None:
    """Ask for ``mask_rate`` of a sequence's ordinary tokens, at least one.

    ``positions`` number the targets in the order of the text, which is that of the output.
    """
    tokens = np.array(ids, dtype=np.int64)
    ordinary = ordinary_places(tokens, settings)
    if not ordinary.size:
        return None
    rng = generator_for(tokens, settings.seed)
    count = share_of(ordinary, settings.mask_rate)
    drawn = rng.choice(ordinary, size=count, replace=False)
    places = np.zeros_like(tokens)
    places[drawn] = np.arange(1, count + 1)
    return Example(ids, np.arange(count), tokens[places > 0], places=tuple(places.tolist()))


PERMUTED = Task(
    name="plm",
    title="permutation language modelling",
    metric="loss",
    unit="nats per target token",
    head="plm",
    read=functools.partial(read_sequences, permute),
    prepare=permute,
    observe=observe_tokens,
    score=score_tokens,
    measure=perplexity,
    further=(f"{INVERTED}top1",),
    naive=naive_tokens,
    reduce=reduce_tokens,
    options={"mask_rate": 1 / 6, "block": None, **TEXT_OPTIONS},
)
