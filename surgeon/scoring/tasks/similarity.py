"""Semantic textual similarity: do the cosines of sentence embeddings rank pairs as people do?

The metric is 1 − Spearman's rank correlation (Reimers and Gurevych 2019, section 4.1), a number of
the whole set: no sum over examples gives it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from surgeon.scoring.encoder import Encoder, Prepared
from surgeon.scoring.examples import Example
from surgeon.scoring.pooling import Pooling
from surgeon.scoring.tasks.classification import COLUMN_OPTIONS, rows_of, texts_of
from surgeon.scoring.tasks.regression import correlations, numbers_of
from surgeon.scoring.tasks.task import Data, Floats, Scores, Settings, Task


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


def one_minus_spearman(predicted: Floats, expected: Floats) -> Floats:
    """Return 1 − the rank correlation over the last axis; 1 where one side does not vary."""
    from scipy.stats import rankdata

    first, second = (rankdata(values, axis=-1) for values in (predicted, expected))
    first -= first.mean(axis=-1, keepdims=True)
    second -= second.mean(axis=-1, keepdims=True)
    product = (first * second).sum(axis=-1)
    norm = np.sqrt((first**2).sum(axis=-1) * (second**2).sum(axis=-1))
    result: Floats = 1 - np.divide(product, norm, out=np.zeros_like(product), where=norm > 0)
    return result


def _score(observed: Floats, baseline: Floats) -> Mapping[str, Scores]:  # noqa: ARG001
    expected, cosines = observed.T
    return {"1 − Spearman": Scores(cosines, expected, one_minus_spearman)}


def _measure(observed: Floats, settings: Settings) -> Mapping[str, float]:  # noqa: ARG001
    expected, cosines = observed.T
    return correlations(cosines, expected)


SIMILARITY = Task(
    name="sts",
    title="semantic textual similarity",
    metric="1 − Spearman",
    unit="1 − rank correlation of the cosines with the scores",
    head="drift",
    read=_read,
    observe=_observe,
    score=_score,
    measure=_measure,
    options=COLUMN_OPTIONS,
    needs="table",
    averages=False,
)
