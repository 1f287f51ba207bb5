"""Semantic textual similarity: do the cosines of sentence embeddings rank pairs as people do?

The metric is 1 − Spearman's rank correlation (Reimers and Gurevych 2019, section 4.1), a number of
the whole set: no sum over examples gives it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from surgeon.tasks.classification import (
    COLUMN_OPTIONS,
    rows_of,
    texts_of,
)
from surgeon.tasks.examples import Encoder, Example, Prepared
from surgeon.tasks.pooling import Pooling
from surgeon.tasks.regression import (
    CORRELATIONS,
    correlations,
    naive_numbers,
    numbers_of,
)
from surgeon.tasks.task import (
    Data,
    Floats,
    Scores,
    Settings,
    Task,
)
from surgeon.tasks.token_labels import TEXT_OPTIONS, read_sequences


def _read(data: Data, encoder: Encoder, settings: Settings) -> Prepared:
    located = rows_of(data, settings, pair=True)
    pooling, scores = settings.pooling or Pooling(), numbers_of(located)
    texts = [
        f"{pooling.prompt}{text.lower() if pooling.lower_case else text}"
        for pair in texts_of(located)
        for text in pair
    ]
    encoded = encoder.encode(texts)
    halves = [
        Example(ids, types=types)
        for ids, types in zip(encoded.sequences, encoded.types, strict=True)
    ]
    examples = tuple(
        Example(first.ids, types=first.types, further=(second,), reference=(score, pooling))
        for first, second, score in zip(halves[::2], halves[1::2], scores, strict=True)
        if score is not None and first.ids and second.ids
    )
    return Prepared(examples, len(scores), encoded.truncated, encoded.unknown)


def _observe(states: npt.NDArray[np.float32], example: Example) -> Floats:
    """Return the score that people gave, and the cosine."""
    score, pooling = example.reference
    first, second = (
        pooling.pool(tokens[: len(sequence.ids)])
        for tokens, sequence in zip(states, example.sequences, strict=True)
    )
    lengths = np.linalg.norm(first) * np.linalg.norm(second)
    # An embedding of all zeros has no direction: it is like no other.
    return np.array([score, first @ second / lengths if lengths > 0 else 0.0])


SIMILARITY = Task(
    name="sts",
    title="semantic textual similarity",
    metric="1 − Spearman",
    unit="1 − rank correlation of the cosines with the scores",
    head="drift",
    read=_read,
    observe=_observe,
    measure=correlations,
    further=CORRELATIONS,
    whole=CORRELATIONS,
    naive=naive_numbers,
    options=COLUMN_OPTIONS,
    needs="table",
)


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


def _measure(observed: Floats, settings: Settings) -> Mapping[str, Scores]:  # noqa: ARG001
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
    measure=_measure,
    against=_drift,
    options=TEXT_OPTIONS,
)
