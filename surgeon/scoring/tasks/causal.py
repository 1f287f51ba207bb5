"""Causal language modelling: the loss on every token but the first, given those before it.

A text longer than the model's length is read in windows that overlap: each token is scored once,
with at least (length − stride) tokens before it. Each window is an example.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from surgeon.errors import EvaluationError
from surgeon.scoring.encoder import Encoder, Prepared
from surgeon.scoring.examples import Example
from surgeon.scoring.tasks.language_model import perplexity, token_losses
from surgeon.scoring.tasks.sequences import lines_of
from surgeon.scoring.tasks.task import Data, Floats, Scores, Settings, Task


def predict_next(ids: tuple[int, ...], settings: Settings) -> Example | None:  # noqa: ARG001
    """Ask for each token at the position before it; None for a single token."""
    tokens = np.array(ids, dtype=np.int64)
    return Example(ids, np.arange(len(ids) - 1), tokens[1:]) if len(ids) > 1 else None


def windows(tokens: int, length: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """Yield (start, first scored token, end) of the windows over a text of so many tokens."""
    scored = 1  # nothing comes before the first
    for start in range(0, max(1, tokens - length + stride), stride):
        end = min(start + length, tokens)
        if scored < end:
            yield start, scored, end
        scored = end


def _read(data: Data, encoder: Encoder, settings: Settings) -> Prepared:
    texts, length = lines_of(data), encoder.max_length
    stride = settings.stride or max(1, length // 2)
    if stride >= length:
        raise EvaluationError(
            f"--stride {stride}: give a number below {length}, the tokens that the model reads at "
            "once, so that each has some before it"
        )
    examples, unknown = [], 0
    encodings = encoder.tokenizer.encode_batch(list(texts.lines))
    for line, encoding in zip(texts.lines, encodings, strict=True):
        ids, ends = encoding.ids, _byte_ends(line, encoding.offsets)
        unknown += ids.count(encoder.unknown_id) if encoder.unknown_id is not None else 0
        for start, first, end in windows(len(ids), length, stride):
            examples.append(
                Example(
                    ids=tuple(ids[start:end]),
                    positions=np.arange(first - 1 - start, end - 1 - start),
                    labels=np.array(ids[first:end], dtype=np.int64),
                    reference=int(ends[end - 1] - ends[first - 1]),
                )
            )
    empty = sum(len(encoding.ids) < 2 for encoding in encodings)
    return Prepared(tuple(examples), len(examples) + empty, 0, unknown)


def _byte_ends(line: str, offsets: list[tuple[int, int]]) -> npt.NDArray[np.int64]:
    """Return where each token ends in a line, in bytes of UTF-8; special ones have no bytes."""
    ends = np.maximum.accumulate([0, *(end for _, end in offsets)])[1:]
    sizes = [len(character.encode()) for character in line]
    places = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    return np.asarray(places[ends], dtype=np.int64)


def _reduce(losses: Floats, hits: Floats, example: Example) -> Floats:
    """Return (summed loss in nats, correct guesses, scored tokens, their bytes)."""
    read = example.reference or 0
    return np.array([losses.sum(), hits.sum(), len(losses), read], dtype=np.float64)


def _observe(logits: npt.NDArray[np.float32], example: Example) -> Floats:
    return _reduce(*token_losses(logits, example), example)


def _score(observed: Floats, baseline: Floats) -> Mapping[str, Scores]:  # noqa: ARG001
    loss, correct, tokens, read = observed.T
    scores = {"loss": Scores(loss, tokens), "top1": Scores(correct, tokens)}
    return {**scores, "bits per byte": Scores(loss / math.log(2), read)} if read.any() else scores


CAUSAL = Task(
    name="clm",
    title="causal language modelling",
    metric="loss",
    unit="nats per token",
    head="clm",
    read=_read,
    prepare=predict_next,
    observe=_observe,
    score=_score,
    derive=perplexity,
    reduce=_reduce,
    options={"stride": None, "text_column": None},
)
