"""What the tasks on plain text share: the tokens drawn, and the losses on them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from surgeon.tasks.examples import Example
from surgeon.tasks.labels import cross_entropy
from surgeon.tasks.task import SHARE, Floats, Scores, Settings, ratio_of_sums

TEXT_OPTIONS: Mapping[str, Any] = {"text_column": None, "document": False}

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Draw:
    """A sequence's tokens, where the ordinary ones are, how many to draw, and by what numbers."""

    tokens: Ids
    ordinary: Ids
    count: int
    rng: np.random.Generator

    @property
    def span(self) -> tuple[int, int]:
        """The place of the first ordinary token, and that behind the last."""
        return int(self.ordinary[0]), int(self.ordinary[-1]) + 1


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


_MOST_LOSS = 700.0  # nats per token


def token_losses(logits: npt.NDArray[np.float32], example: Example) -> tuple[Floats, Floats]:
    """Return the losses in nats and the hits at the positions of an example, each (scored,).

    ``logits`` are (tokens, vocabulary), or (targets, vocabulary) where the positions are targets,
    with a leading axis where the example has several sequences.
    """
    outputs = logits if example.further else [logits]
    pairs = zip(outputs, example.sequences, strict=True)
    scored = np.concatenate([output[sequence.positions] for output, sequence in pairs])
    labels = np.concatenate([sequence.labels for sequence in example.sequences])
    return cross_entropy(scored, labels), (scored.argmax(axis=1) == labels).astype(np.float64)


def observe_tokens(logits: npt.NDArray[np.float32], example: Example) -> Floats:
    """Return what ``reduce_tokens`` does, from an example's logits."""
    return reduce_tokens(*token_losses(logits, example), example)


def reduce_tokens(losses: Floats, hits: Floats, example: Example) -> Floats:
    """Return (summed loss in nats, correct top-1 guesses, scored tokens) of one example.

    Behind them come the bytes and the words of what was scored, where they were counted.
    """
    read = () if example.reference is None else example.reference
    return np.array([losses.sum(), hits.sum(), len(losses), *read], dtype=np.float64)


def measure_tokens(observed: Floats, settings: Settings) -> Mapping[str, Scores]:
    """Return the loss in nats and the top-1 accuracy, both per scored token, and the perplexity.

    Where bytes and words were counted, the loss per byte and the perplexity per word, which do not
    depend on the tokenizer, come with them.
    """
    loss, correct, tokens, *read = observed.T
    scores = {"loss": Scores(loss, tokens), "top1": Scores(correct, tokens, bounds=SHARE)}
    if read and read[0].any():
        scores["bits per byte"] = Scores(loss / math.log(2), read[0])
    for name, count in zip(("perplexity", "word perplexity"), (tokens, *read[1:]), strict=False):
        if loss.sum() < _MOST_LOSS * count.sum():  # else float64 cannot exponentiate it
            scores[name] = Scores(loss, count, lambda *sums: np.exp(ratio_of_sums(*sums)))
    return scores


def naive_tokens(
    examples: Sequence[Example], observed: Floats, settings: Settings
) -> Mapping[str, Floats]:
    """Return what guessers that read no text would be observed to lose; the loss comes first.

    One takes all tokens for equally likely, the other each for as likely as it is in the other
    texts (counts + 1, Laplace's rule).
    """
    size = settings.vocabulary
    if not size:
        return {}
    counts = np.bincount(np.concatenate([e.labels for e in examples]), minlength=size)
    by_chance, by_count = observed.copy(), observed.copy()
    by_chance[:, 0] = [example.labels.size * math.log(size) for example in examples]
    for row, example in enumerate(examples):
        labels, places, own = np.unique(example.labels, return_inverse=True, return_counts=True)
        others = (counts[labels] - own + 1)[places]
        by_count[row, 0] = np.log((counts.sum() - own.sum() + counts.size) / others).sum()
    return {
        f"a guess among {size} tokens (their logarithm)": by_chance,
        "each token's share of the other texts": by_count,
    }
