"""Causal language modelling: the loss on every token but the first, given those before it."""

from __future__ import annotations

import numpy as np

from surgeon.scoring.examples import Example
from surgeon.scoring.tasks.language_model import (
    observe_tokens,
    perplexity,
    reduce_tokens,
    score_tokens,
)
from surgeon.scoring.tasks.task import Settings, Task


def predict_next(ids: tuple[int, ...], settings: Settings) -> Example | None:  # noqa: ARG001
    """Ask for each token at the position before it; None for a single token."""
    tokens = np.array(ids, dtype=np.int64)
    return Example(ids, np.arange(len(ids) - 1), tokens[1:]) if len(ids) > 1 else None


CAUSAL = Task(
    name="clm",
    title="causal language modelling",
    metric="loss",
    unit="nats per token",
    prepare=predict_next,
    observe=observe_tokens,
    score=score_tokens,
    derive=perplexity,
    reduce=reduce_tokens,
)
