"""Masked language modelling: the loss on hidden tokens (Devlin et al. 2019, section 3.1).

By default every chosen token is replaced by the mask token, so that no variant sees any of them.
With ``--masking bert`` that happens to 80 in 100, 10 become another token, and 10 stay.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from surgeon.errors import EvaluationError
from surgeon.tasks.examples import Example
from surgeon.tasks.task import (
    INVERTED,
    SHARE,
    Floats,
    Scores,
    Settings,
    Task,
    ratio_of_sums,
)
from surgeon.tasks.token_labels import TEXT_OPTIONS, read_sequences

_MOST_LOSS = 700.0  # nats per token


def reduce_tokens(losses: Floats, hits: Floats, example: Example) -> Floats:  # noqa: ARG001
    """Return (summed loss in nats, correct top-1 guesses, scored tokens) of one example."""
    return np.array([losses.sum(), hits.sum(), len(losses)], dtype=np.float64)


def token_losses(logits: npt.NDArray[np.float32], example: Example) -> tuple[Floats, Floats]:
    """Return the losses in nats and the hits at an example's positions, each (scored,).

    ``logits`` are (tokens, vocabulary), or (targets, vocabulary) where the positions are targets.
    """
    scored = logits[example.positions].astype(np.float64)
    peak = scored.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(scored - peak).sum(axis=1)) + peak[:, 0]
    losses = log_sum - scored[np.arange(len(scored)), example.labels]
    return losses, (scored.argmax(axis=1) == example.labels).astype(np.float64)


def observe_tokens(logits: npt.NDArray[np.float32], example: Example) -> Floats:
    """Return what ``reduce_tokens`` does, from an example's logits."""
    return reduce_tokens(*token_losses(logits, example), example)


def measure_tokens(observed: Floats, settings: Settings) -> Mapping[str, Scores]:  # noqa: ARG001
    """Return the loss in nats and the top-1 accuracy, both per scored token, and the perplexity."""
    loss, correct, tokens = observed.T
    scores = {"loss": Scores(loss, tokens), "top1": Scores(correct, tokens, bounds=SHARE)}
    return {**scores, **perplexity(loss, tokens)}


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


def perplexity(loss: Floats, tokens: Floats) -> Mapping[str, Scores]:
    """Return the perplexity; of a loss that float64 cannot exponentiate, none."""
    fits = loss.sum() < _MOST_LOSS * tokens.sum()
    return {"perplexity": Scores(loss, tokens, _exp_of_mean)} if fits else {}


def _exp_of_mean(loss: Floats, tokens: Floats) -> Floats:
    return np.exp(ratio_of_sums(loss, tokens))


_MASKED, _REPLACED = 0.8, 0.9  # up to the first: the mask token, up to the second: another one


def mask_id_of(settings: Settings) -> int:
    """Return the token that hides another.

    Raises:
        EvaluationError: the tokenizer has none.
    """
    if settings.mask_id is None:
        raise EvaluationError(
            "the tokenizer has no mask token, so the masked loss is undefined; name one in its "
            "tokenizer_config.json and patch again"
        )
    return settings.mask_id


def mask(ids: tuple[int, ...], settings: Settings) -> Example | None:
    """Hide ``mask_rate`` of a sequence's ordinary tokens, at least one.

    The choice depends on the seed and on the sequence alone, so that it is the same for every
    variant, batch size and order. None if the sequence has no ordinary token.
    """
    hidden_by = mask_id_of(settings)
    tokens = np.array(ids, dtype=np.int64)
    ordinary = ordinary_places(tokens, settings)
    if not ordinary.size:
        return None
    rng = generator_for(tokens, settings.seed)
    count = share_of(ordinary, settings.mask_rate)
    positions = np.sort(rng.choice(ordinary, size=count, replace=False))
    labels = tokens[positions]
    hidden = np.full_like(labels, hidden_by)
    if settings.masking == "bert":
        fate = rng.random(count)
        others = other_tokens(labels, rng, settings)
        hidden = np.where(fate < _MASKED, hidden, np.where(fate < _REPLACED, others, labels))
    tokens[positions] = hidden
    return Example(tuple(tokens.tolist()), positions, labels)


MASKED = Task(
    name="mlm",
    title="masked language modelling",
    metric="loss",
    unit="nats per masked token",
    head="mlm",
    read=functools.partial(read_sequences, mask),
    prepare=mask,
    observe=observe_tokens,
    measure=measure_tokens,
    further=(f"{INVERTED}top1",),
    naive=naive_tokens,
    reduce=reduce_tokens,
    options={"mask_rate": 0.15, "masking": "all", "block": None, **TEXT_OPTIONS},
)


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
