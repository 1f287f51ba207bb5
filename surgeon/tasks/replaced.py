"""Replaced-token detection: which tokens are not the text's own (Clark et al. 2020, section 2).

ELECTRA's discriminator learned on what a small generator puts in; here random tokens of the
vocabulary stand in its place, so that no second model is needed. All tokens are judged, special
ones too, as in training.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from surgeon.tasks.examples import Example
from surgeon.tasks.masked import (
    generator_for,
    ordinary_places,
    other_tokens,
    share_of,
)
from surgeon.tasks.task import (
    INVERTED,
    SHARE,
    Floats,
    Scores,
    Settings,
    Task,
)
from surgeon.tasks.token_labels import TEXT_OPTIONS, read_sequences


def replace(ids: tuple[int, ...], settings: Settings) -> Example | None:
    """Replace ``mask_rate`` of a sequence's ordinary tokens; the labels are 1 where it did."""
    tokens = np.array(ids, dtype=np.int64)
    ordinary = ordinary_places(tokens, settings)
    if not ordinary.size:
        return None
    rng = generator_for(tokens, settings.seed)
    count = share_of(ordinary, settings.mask_rate)
    places = np.sort(rng.choice(ordinary, size=count, replace=False))
    labels = np.zeros_like(tokens)
    labels[places] = 1
    tokens[places] = other_tokens(tokens[places], rng, settings)
    return Example(tuple(tokens.tolist()), np.arange(len(tokens)), labels)


def _observe(logits: npt.NDArray[np.float32], example: Example) -> Floats:
    """Return (summed loss, tokens, true and false positives, false and true negatives)."""
    scores = logits[example.positions].astype(np.float64)
    replaced, guessed = example.labels == 1, scores > 0
    losses = np.logaddexp(0, np.where(replaced, -scores, scores))
    counts = (
        (guessed & replaced).sum(),
        (guessed & ~replaced).sum(),
        (~guessed & replaced).sum(),
        (~guessed & ~replaced).sum(),
    )
    return np.array([losses.sum(), len(losses), *counts], dtype=np.float64)


def _measure(observed: Floats, settings: Settings) -> Mapping[str, Scores]:  # noqa: ARG001
    """Return the loss, the share that is right, and F1 of finding what was replaced."""
    loss, tokens, found, false, missed, left = observed.T
    return {
        "loss": Scores(loss, tokens),
        "accuracy": Scores(found + left, tokens, bounds=SHARE),
        "F1": Scores(np.stack([found, false], axis=1), found + missed, _f1),
    }


def _f1(counts: Floats, replaced: Floats) -> Floats:
    found, false = counts.sum(axis=0)
    return np.asarray(2 * found / (found + false + replaced.sum()))


def _naive(
    examples: Sequence[Example],
    observed: Floats,
    settings: Settings,  # noqa: ARG001
) -> Mapping[str, Floats]:
    """Return what would be observed if each token were as likely replaced as any is."""
    tokens = np.array([example.labels.size for example in examples])
    replaced = np.array([example.labels.sum() for example in examples])
    share, constant = replaced.sum() / tokens.sum(), np.zeros_like(observed)
    constant[:, 0] = -replaced * np.log(share) - (tokens - replaced) * np.log1p(-share)
    constant[:, 1], constant[:, 4], constant[:, 5] = tokens, replaced, tokens - replaced
    return {"the share of replaced tokens for each": constant}


REPLACED = Task(
    name="rtd",
    title="replaced-token detection",
    metric="loss",
    unit="nats per token",
    head="rtd",
    read=functools.partial(read_sequences, replace),
    prepare=replace,
    observe=_observe,
    measure=_measure,
    further=(f"{INVERTED}accuracy", f"{INVERTED}F1"),
    whole=(f"{INVERTED}F1",),
    naive=_naive,
    options={"mask_rate": 0.15, "block": None, **TEXT_OPTIONS},
)
