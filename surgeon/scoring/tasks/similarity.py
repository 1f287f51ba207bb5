"""Semantic textual similarity: do the cosines of sentence embeddings rank pairs as people do?

The metric is 1 − Spearman's rank correlation (Reimers and Gurevych 2019, section 4.1), a number of
the whole set: no sum over examples gives it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from surgeon.scoring.encoder import Encoder, Prepared
from surgeon.scoring.examples import Example
from surgeon.scoring.pooling import Pooling
from surgeon.scoring.tasks.classification import COLUMN_OPTIONS, rows_of, texts_of
from surgeon.scoring.tasks.regression import (
    CORRELATIONS,
    correlations,
    naive_numbers,
    numbers_of,
)
from surgeon.scoring.tasks.task import Data, Floats, Settings, Task, nothing_further


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
    score=nothing_further,
    measure=correlations,
    further=CORRELATIONS,
    whole=CORRELATIONS,
    naive=naive_numbers,
    options=COLUMN_OPTIONS,
    needs="table",
)
