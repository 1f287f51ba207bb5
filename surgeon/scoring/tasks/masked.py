"""Masked language modelling: the loss on hidden tokens (Devlin et al. 2019, section 3.1).

By default every chosen token is replaced by the mask token, so that no variant sees any of them.
With ``--masking bert`` that happens to 80 in 100, 10 become another token, and 10 stay.
"""

from __future__ import annotations

import functools

import numpy as np

from surgeon.errors import EvaluationError
from surgeon.scoring.examples import Example
from surgeon.scoring.tasks.drawing import generator_for, ordinary_places, other_tokens, share_of
from surgeon.scoring.tasks.language_model import (
    naive_tokens,
    observe_tokens,
    perplexity,
    reduce_tokens,
    score_tokens,
)
from surgeon.scoring.tasks.sequences import TEXT_OPTIONS, read_sequences
from surgeon.scoring.tasks.task import INVERTED, Settings, Task

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
    score=score_tokens,
    measure=perplexity,
    further=(f"{INVERTED}top1",),
    naive=naive_tokens,
    reduce=reduce_tokens,
    options={"mask_rate": 0.15, "masking": "all", "block": None, **TEXT_OPTIONS},
)
