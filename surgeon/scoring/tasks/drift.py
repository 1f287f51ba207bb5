"""Representation drift: how far sentence embeddings move, for a model without a head.

Drift is 1 − cosine between the mean-pooled last hidden states of the baseline and of the variant:
0 for the baseline itself, 1 for embeddings that have nothing in common.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from surgeon.scoring.examples import Example
from surgeon.scoring.tasks.sequences import TEXT_OPTIONS, read_sequences
from surgeon.scoring.tasks.task import Floats, Scores, Settings, Task

_MOST = 2.0  # of two embeddings that point apart


def _whole(ids: tuple[int, ...], settings: Settings) -> Example | None:  # noqa: ARG001
    return Example(ids) if ids else None


def _pool(states: npt.NDArray[np.float32], example: Example) -> Floats:
    pooled: Floats = states[: len(example.ids)].mean(axis=0, dtype=np.float64)
    return pooled


def _drift(observed: Floats, baseline: Floats) -> Floats:
    """Return the drift of each example, (examples, 1)."""
    lengths = np.linalg.norm(observed, axis=1) * np.linalg.norm(baseline, axis=1)
    products = np.einsum("ij,ij->i", observed, baseline)
    # An embedding of all zeros has no direction: it shares nothing with any other.
    cosine = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    same = (observed == baseline).all(axis=1)
    return np.where(same, 0.0, np.clip(1.0 - cosine, 0.0, _MOST))[:, None]


def _score(observed: Floats, baseline: Floats) -> Mapping[str, Scores]:  # noqa: ARG001
    drift = observed[:, 0]
    return {"drift": Scores(drift, np.ones_like(drift), bounds=(0.0, _MOST))}


DRIFT = Task(
    name="drift",
    title="representation drift",
    metric="drift",
    unit="1 − cosine to the baseline",
    head="drift",
    read=functools.partial(read_sequences, _whole),
    prepare=_whole,
    observe=_pool,
    score=_score,
    against=_drift,
    options=TEXT_OPTIONS,
)
