"""What the language-model tasks share: the loss at the scored positions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from surgeon.scoring.examples import Example
from surgeon.scoring.tasks.task import SHARE, Floats, Scores, Settings, ratio_of_sums

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


def score_tokens(observed: Floats, baseline: Floats) -> Mapping[str, Scores]:  # noqa: ARG001
    """Return the loss in nats and the top-1 accuracy, both per scored token."""
    loss, correct, tokens = observed.T
    return {"loss": Scores(loss, tokens), "top1": Scores(correct, tokens, bounds=SHARE)}


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


def perplexity(observed: Floats, settings: Settings) -> Mapping[str, Scores]:  # noqa: ARG001
    """Return the perplexity; of a loss that float64 cannot exponentiate, none."""
    loss, tokens = observed[:, 0], observed[:, 2]
    fits = loss.sum() < _MOST_LOSS * tokens.sum()
    return {"perplexity": Scores(loss, tokens, _exp_of_mean)} if fits else {}


def _exp_of_mean(loss: Floats, tokens: Floats) -> Floats:
    return np.exp(ratio_of_sums(loss, tokens))
