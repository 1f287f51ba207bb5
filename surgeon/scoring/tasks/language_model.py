"""What the language-model tasks share: the loss at the scored positions."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from surgeon.scoring.examples import Example
from surgeon.scoring.tasks.task import Floats, Scores


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
    return {"loss": Scores(loss, tokens), "top1": Scores(correct, tokens)}


def perplexity(values: Mapping[str, float]) -> Mapping[str, float]:
    """Return the perplexity; of a loss that float64 cannot exponentiate, none."""
    return {"perplexity": math.exp(values["loss"])} if values["loss"] < 700 else {}
