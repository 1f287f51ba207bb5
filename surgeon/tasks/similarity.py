"""What the embeddings of a model without a head are worth: likeness to people's scores, and drift.

Semantic textual similarity asks if the cosines of sentence embeddings rank pairs as people do. Its
metric is 1 − Spearman's rank correlation (Reimers and Gurevych 2019, section 4.1), a number of the
whole set: no sum over examples gives it.

Drift needs no labels: it is how far the embedding of each text moves from the baseline's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from surgeon.tasks.classification import CORRELATIONS, correlations, naive_numbers
from surgeon.tasks.configuration import Pooling
from surgeon.tasks.examples import Encoder, Example, Prepared
from surgeon.tasks.labels import numeric_labels
from surgeon.tasks.sequences import TEXT_OPTIONS
from surgeon.tasks.table import COLUMN_OPTIONS, locate
from surgeon.tasks.task import Data, Floats, Scores, Settings, Task

_MOST = 2.0  # of two embeddings that point apart


def _cosines(first: Floats, second: Floats) -> Floats:
    """Return the cosine of each two rows; one of all zeros has no direction, and is like none."""
    products = np.einsum("ij,ij->i", first, second)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    cosines: Floats = np.zeros_like(products)
    np.divide(products, lengths, out=cosines, where=lengths > 0)
    return cosines


def _read_pairs(data: Data, encoder: Encoder, settings: Settings) -> Prepared:
    located = locate(data, settings.columns, pair=True)
    pooling, scores = settings.pooling or Pooling(), numeric_labels(located)
    texts = [pooling.prompt + text for pair in located.pairs for text in pair]
    if pooling.lower_case:
        texts = [text.lower() for text in texts]
    encoded = encoder.encode(texts)
    halves = encoded.examples
    examples = tuple(
        dataclasses.replace(first, further=(second,), reference=(score, pooling))
        for first, second, score in zip(halves[::2], halves[1::2], scores, strict=True)
        if score is not None and first.ids and second.ids
    )
    return dataclasses.replace(encoded, examples=examples, given=len(scores))


def _observe_pair(states: npt.NDArray[np.float32], example: Example) -> Floats:
    """Return the score that people gave, and the cosine."""
    score, pooling = example.reference
    first, second = (
        pooling.pool(tokens[: len(sequence.ids)])[None]
        for tokens, sequence in zip(states, example.sequences, strict=True)
    )
    return np.array([score, *_cosines(first, second)])


SIMILARITY = Task(
    name="sts",
    title="semantic textual similarity",
    metric="1 − Spearman",
    unit="1 − rank correlation of the cosines with the scores",
    heads=("drift",),
    reader=_read_pairs,
    observe=_observe_pair,
    measure=correlations,
    whole=CORRELATIONS,
    naive=naive_numbers,
    options=COLUMN_OPTIONS,
)


def _observe_text(states: npt.NDArray[np.float32], example: Example) -> Floats:
    pooled: Floats = states[: len(example.ids)].mean(axis=0, dtype=np.float64)
    return pooled


def _drift(observed: Floats, baseline: Floats) -> Floats:
    """Return the drift of each example, (examples, 1)."""
    same = (observed == baseline).all(axis=1)
    apart = np.clip(1.0 - _cosines(observed, baseline), 0.0, _MOST)
    return np.where(same, 0.0, apart)[:, None]


def _measure_drift(observed: Floats, settings: Settings) -> Mapping[str, Scores]:
    drift = observed[:, 0]
    return {"drift": Scores(drift, np.ones_like(drift), bounds=(0.0, _MOST))}


DRIFT = Task(
    name="drift",
    title="representation drift",
    metric="drift",
    unit="1 − cosine to the baseline",
    heads=("drift",),
    prepare=lambda ids, _: Example(ids) if ids else None,
    observe=_observe_text,
    measure=_measure_drift,
    against=_drift,
    options=TEXT_OPTIONS,
)
