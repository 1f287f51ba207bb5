"""Denoising: a text with spans cut out, written whole by the decoder (Lewis et al. 2020, 2.2).

Spans whose lengths are drawn from a Poisson distribution of mean 3 become one mask token each; a
span of no tokens puts one in. The decoder is given the text as it was (teacher forcing).
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from surgeon.errors import EvaluationError
from surgeon.tasks.examples import Example
from surgeon.tasks.masked import (
    generator_for,
    measure_tokens,
    naive_tokens,
    observe_tokens,
    ordinary_places,
    reduce_tokens,
    share_of,
)
from surgeon.tasks.task import (
    INVERTED,
    Settings,
    Task,
)
from surgeon.tasks.token_labels import TEXT_OPTIONS, read_sequences

_MEAN_SPAN = 3


def infill(ids: tuple[int, ...], settings: Settings) -> Example | None:
    """Cut spans of ``mask_rate`` of a sequence's tokens, and ask for all of it.

    None if the sequence has no ordinary token.
    """
    start = settings.decoder_start_id
    if settings.mask_id is None or start is None:
        missing = "tokenizer has no mask token" if start is not None else "decoder has no start"
        raise EvaluationError(f"the {missing}, so the loss of text infilling is undefined")
    tokens = np.array(ids, dtype=np.int64)
    ordinary = ordinary_places(tokens, settings)
    if not ordinary.size:
        return None
    rng = generator_for(tokens, settings.seed)
    lengths = draw_lengths(share_of(ordinary, settings.mask_rate), rng)
    first, end = int(ordinary[0]), int(ordinary[-1]) + 1
    # What stays and what goes, in a random order: each kept token is one unit, each span another.
    units = (end - first) - int(lengths.sum()) + len(lengths)
    spans = dict(zip(np.sort(rng.choice(units, len(lengths), replace=False)), lengths, strict=True))
    noisy, place = [], first
    for unit in range(units):
        noisy.append(settings.mask_id if unit in spans else int(tokens[place]))
        place += int(spans.get(unit, 1))
    return Example(
        ids=(*ids[:first], *noisy, *ids[end:]),
        positions=np.arange(len(ids)),
        labels=tokens,
        decoder_ids=(start, *ids[:-1]),
    )


def draw_lengths(tokens: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draw lengths of spans until they cover so many tokens; the last is cut to fit."""
    lengths: list[int] = []
    while (left := tokens - sum(lengths)) > 0:
        lengths.append(min(int(rng.poisson(_MEAN_SPAN)), left))
    return np.array(lengths, dtype=np.int64)


DENOISING = Task(
    name="denoising",
    title="text infilling",
    metric="loss",
    unit="nats per target token",
    head="denoising",
    read=functools.partial(read_sequences, infill),
    prepare=infill,
    observe=observe_tokens,
    measure=measure_tokens,
    further=(f"{INVERTED}top1",),
    naive=naive_tokens,
    reduce=reduce_tokens,
    options={"mask_rate": 0.3, "block": None, **TEXT_OPTIONS},
)


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
    measure=measure_tokens,
    further=(f"{INVERTED}top1",),
    naive=naive_tokens,
    reduce=reduce_tokens,
    options={"mask_rate": 1 / 6, "block": None, **TEXT_OPTIONS},
)
