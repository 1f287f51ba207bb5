"""What is drawn for an example: by the seed and the example alone, never by batch or order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from surgeon.scoring.tasks.task import Settings

Ids = npt.NDArray[np.int64]


def generator_for(tokens: Ids, seed: int) -> np.random.Generator:
    """Return the random numbers of a sequence: the same for every variant, batch and order."""
    digest = np.frombuffer(blake3(tokens.tobytes()).digest(), dtype=np.uint32)
    return np.random.default_rng([seed, *map(int, digest)])


def ordinary_places(tokens: Ids, settings: Settings) -> Ids:
    """Return where a sequence has tokens that are not special."""
    return np.flatnonzero(~np.isin(tokens, settings.special_ids))


def share_of(places: Ids, rate: float) -> int:
    """Return the number of places that are a share of them, at least one."""
    return max(1, round(rate * places.size))


def other_tokens(tokens: Ids, rng: np.random.Generator, settings: Settings) -> Ids:
    """Draw an ordinary token of the vocabulary for each of some tokens, never the same one."""
    vocabulary = np.setdiff1d(np.arange(settings.vocabulary), settings.special_ids)
    drawn = vocabulary[rng.integers(vocabulary.size, size=tokens.size)]
    return np.where(
        drawn == tokens,
        vocabulary[(np.searchsorted(vocabulary, drawn) + 1) % vocabulary.size],
        drawn,
    )
