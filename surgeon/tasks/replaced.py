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
from surgeon.tasks.labels import detection
from surgeon.tasks.sequences import TEXT_OPTIONS, begin_draw, other_tokens, read_sequences
from surgeon.tasks.task import INVERTED, SHARE, Floats, Scores, Settings, Task


def replace(ids: tuple[int, ...], settings: Settings) -> Example | None:
    """Replace ``mask_rate`` of a sequence's ordinary tokens; the labels are 1 where it did."""
    draw = begin_draw(ids, settings)
    if draw is None:
        return None
    tokens, labels = draw.tokens, np.zeros_like(draw.tokens)
    places = np.sort(draw.rng.choice(draw.ordinary, size=draw.count, replace=False))
    labels[places] = 1
    tokens[places] = other_tokens(tokens[places], draw.rng, settings)
    return Example(tuple(tokens.tolist()), np.arange(len(tokens)), labels)


def _observe(logits: npt.NDArray[np.float32], example: Example) -> Floats:
    """Return (summed loss, tokens, true and false positives, false and true negatives)."""
    scores = logits[example.positions].astype(np.float64)
    replaced, guessed = example.labels == 1, scores > 0
    losses = np.logaddexp(0, np.where(replaced, -scores, scores))
    outcomes = (guessed & replaced, guessed & ~replaced, ~guessed & replaced, ~guessed & ~replaced)
    return np.array([losses.sum(), len(losses), *(outcome.sum() for outcome in outcomes)])


def _measure(observed: Floats, settings: Settings) -> Mapping[str, Scores]:  # noqa: ARG001
    loss, tokens, found, false, missed, left = observed.T
    return {
        "loss": Scores(loss, tokens),
        "accuracy": Scores(found + left, tokens, bounds=SHARE),
        "F1": detection(found, found + false, found + missed)["F1"],
    }


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
