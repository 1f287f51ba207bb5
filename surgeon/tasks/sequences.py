"""What the tasks on plain text share: their examples, and what is drawn of a text's tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from surgeon.errors import EvaluationError
from surgeon.tasks.encoder import Encoder, Prepared
from surgeon.tasks.examples import Example
from surgeon.tasks.task import Data, Settings
from surgeon.text import Texts

TEXT_OPTIONS: Mapping[str, Any] = {"text_column": None, "document": False}

Ids = npt.NDArray[np.int64]


def texts_of(data: Data) -> tuple[str, ...]:
    """Return the texts of data that must be texts.

    Raises:
        EvaluationError: they are a table.
    """
    if not isinstance(data, Texts):
        raise EvaluationError(f"`data` {data.name}: texts are needed, and these are labelled rows")
    return data.lines


def read_sequences(
    prepare: Callable[[tuple[int, ...], Settings], Example | None],
    data: Data,
    encoder: Encoder,
    settings: Settings,
) -> Prepared:
    """Make an example of each text, cut to the model's length, or of each block.

    A sequence in which ``prepare`` finds nothing to score is left out.
    """
    texts, block = texts_of(data), settings.block
    encoded = encoder.encode(texts) if block is None else encoder.cut_in_blocks(texts, block)
    examples = []
    for whole in encoded.examples:
        example = prepare(whole.ids, settings)
        if example is not None:
            fits = len(example.ids) == len(whole.types)
            examples.append(dataclasses.replace(example, types=whole.types) if fits else example)
    return Prepared(
        tuple(examples),
        len(encoded.sequences),
        encoded.truncated,
        encoded.unknown,
        "texts" if block is None else "blocks",
    )


@dataclass(frozen=True, eq=False)
class Draw:
    """A sequence's tokens, where the ordinary ones are, how many to draw, and by what numbers."""

    tokens: Ids
    ordinary: Ids
    count: int
    rng: np.random.Generator


def begin_draw(ids: tuple[int, ...], settings: Settings) -> Draw | None:
    """Prepare to draw ``mask_rate`` of the ordinary tokens, at least one; None if there is none.

    The random numbers depend on the seed and the sequence alone, so that they are the same for
    every variant, batch size and order.
    """
    tokens = np.array(ids, dtype=np.int64)
    ordinary = ordinary_places(tokens, settings)
    if not ordinary.size:
        return None
    digest = np.frombuffer(blake3(tokens.tobytes()).digest(), dtype=np.uint32)
    rng = np.random.default_rng([settings.seed, *map(int, digest)])
    return Draw(tokens, ordinary, max(1, round(settings.mask_rate * ordinary.size)), rng)


def ordinary_places(tokens: Ids, settings: Settings) -> Ids:
    """Return where a sequence has tokens that are not special."""
    return np.flatnonzero(~np.isin(tokens, settings.special_ids))


def other_tokens(tokens: Ids, rng: np.random.Generator, settings: Settings) -> Ids:
    """Draw an ordinary token of the vocabulary for each of some tokens, never the same one."""
    vocabulary = np.setdiff1d(np.arange(settings.vocabulary), settings.special_ids)
    drawn = vocabulary[rng.integers(vocabulary.size, size=tokens.size)]
    following = vocabulary[(np.searchsorted(vocabulary, drawn) + 1) % vocabulary.size]
    return np.where(drawn == tokens, following, drawn)
