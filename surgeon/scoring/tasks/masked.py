"""Masked language modelling: the loss on hidden tokens (Devlin et al. 2019, section 3.1).

Every chosen token is replaced by the mask token, so that no variant sees any of them.
"""

from __future__ import annotations

import numpy as np
from blake3 import blake3

from surgeon.errors import EvaluationError
from surgeon.scoring.examples import Example
from surgeon.scoring.tasks.language_model import (
    observe_tokens,
    perplexity,
    reduce_tokens,
    score_tokens,
)
from surgeon.scoring.tasks.task import Settings, Task


def mask(ids: tuple[int, ...], settings: Settings) -> Example | None:
    """Hide ``mask_rate`` of a sequence's ordinary tokens, at least one.

    The choice depends on the seed and on the sequence alone, so that it is the same for every
    variant, batch size and order. None if the sequence has no ordinary token.
    """
    if settings.mask_id is None:
        raise EvaluationError("the tokenizer has no mask token, so the masked loss is undefined")
    tokens = np.array(ids, dtype=np.int64)
    ordinary = np.flatnonzero(~np.isin(tokens, settings.special_ids))
    if not ordinary.size:
        return None
    count = max(1, round(settings.mask_rate * ordinary.size))
    digest = np.frombuffer(blake3(tokens.tobytes()).digest(), dtype=np.uint32)
    rng = np.random.default_rng([settings.seed, *map(int, digest)])
    positions = np.sort(rng.choice(ordinary, size=count, replace=False))
    labels = tokens[positions]
    tokens[positions] = settings.mask_id
    return Example(tuple(tokens.tolist()), positions, labels)


MASKED = Task(
    name="mlm",
    title="masked language modelling",
    metric="loss",
    unit="nats per masked token",
    prepare=mask,
    observe=observe_tokens,
    score=score_tokens,
    derive=perplexity,
    reduce=reduce_tokens,
)
