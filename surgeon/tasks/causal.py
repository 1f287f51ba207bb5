"""Causal language modelling: the loss on every token but the first, given those before it.

With ``--bos`` a text begins with the BOS token, so that its own first token is scored too. A text
longer than the model's length is read in windows that overlap: each token is scored once, with at
least (length − stride) tokens before it. Each window is an example.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from surgeon.errors import EvaluationError
from surgeon.tasks.examples import Encoder, Example, Prepared
from surgeon.tasks.masked import (
    naive_tokens,
    perplexity,
    token_losses,
)
from surgeon.tasks.task import (
    INVERTED,
    SHARE,
    Data,
    Floats,
    Scores,
    Settings,
    Task,
)
from surgeon.tasks.token_labels import (
    TEXT_OPTIONS,
    frame_of,
    lines_of,
    room_in,
)
from surgeon.text import Texts

FIRST_NOT_SCORED = (
    "the first token is not scored, because nothing comes before it; --bos puts the tokenizer's "
    "BOS token there, as lm-eval does"
)


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


@dataclass(frozen=True, eq=False)
class _Stream:
    """Tokens in a row; ``read`` has the bytes of UTF-8 and the words that each ends, (tokens, 2).

    Words are counted as lm-eval does: one more than there are gaps of white space in a text.
    """

    ids: tuple[int, ...]
    read: npt.NDArray[np.int64]


def _read(data: Data, encoder: Encoder, settings: Settings) -> Prepared:
    texts, length = lines_of(data), encoder.max_length
    stride = settings.stride or max(1, length // 2)
    if stride >= length:
        raise EvaluationError(
            f"--stride {stride}: give a number below {length}, the tokens that the model reads at "
            "once, so that each has some before it"
        )
    if settings.block is None:
        streams, unit = _streams(texts, encoder, special=True), "texts"
    elif settings.stride is None:
        streams, unit = _blocks(texts, encoder, settings.block), "blocks"
    else:
        raise EvaluationError(
            f"--stride {stride}: is for texts longer than the model reads, and --block leaves "
            "none; give one of them"
        )
    examples, unknown, empty = [], 0, 0
    for stream in streams:
        ids, ends = stream.ids, np.cumsum(stream.read, axis=0)
        unknown += ids.count(encoder.unknown_id) if encoder.unknown_id is not None else 0
        empty += len(ids) < 2
        for start, first, end in windows(len(ids), length, stride):
            examples.append(
                Example(
                    ids=ids[start:end],
                    positions=np.arange(first - 1 - start, end - 1 - start),
                    labels=np.array(ids[first:end], dtype=np.int64),
                    reference=ends[end - 1] - ends[first - 1],
                )
            )
    if unit == "texts" and len(examples) > len(streams) - empty:
        unit = "windows"
    notes = () if frame_of(texts.lines, encoder).before else (FIRST_NOT_SCORED,)
    return Prepared(tuple(examples), len(examples) + empty, 0, unknown, unit, notes)


def _streams(texts: Texts, encoder: Encoder, *, special: bool) -> list[_Stream]:
    """Return the tokens of each text; none of a text that has none of its own."""
    encodings = encoder.tokenizer.encode_batch(list(texts.lines), add_special_tokens=special)
    return [
        _Stream(tuple(encoding.ids), _read_by(line, encoding.offsets))
        if 0 in encoding.special_tokens_mask
        else _Stream((), np.empty((0, 2), dtype=np.int64))
        for line, encoding in zip(texts.lines, encodings, strict=True)
    ]


def _blocks(texts: Texts, encoder: Encoder, block: int) -> list[_Stream]:
    """Join the tokens of all texts and cut them to blocks, each with the special tokens of one."""
    frame, streams = frame_of(texts.lines, encoder), _streams(texts, encoder, special=False)
    # Without a token before it, the first of a block is not scored: it takes two.
    size = room_in(block, max(1, frame.special), encoder) + (frame.special == 0)
    ids = [token for stream in streams for token in stream.ids]
    read = np.concatenate([stream.read for stream in streams])
    around = ((len(frame.before), len(frame.after)), (0, 0))
    return [
        _Stream(
            (*frame.before, *ids[start : start + size], *frame.after),
            np.pad(read[start : start + size], around),
        )
        for start in range(0, len(ids), size)
    ]


def _read_by(line: str, offsets: list[tuple[int, int]]) -> npt.NDArray[np.int64]:
    """Return the bytes and words that each token ends; the last ends the text."""
    ends = np.maximum.accumulate([0, *(end for _, end in offsets)])
    ends[-1] = len(line)
    places = np.cumsum([0, *(len(character.encode()) for character in line)], dtype=np.int64)
    gaps = [gap.start() for gap in re.finditer(r"\s+", line)]
    words = np.searchsorted(gaps, ends)
    words[-1] += 1
    return np.stack([np.diff(places[ends]), np.diff(words)], axis=1)


def _reduce(losses: Floats, hits: Floats, example: Example) -> Floats:
    """Return (summed loss in nats, correct guesses, scored tokens, their bytes, their words)."""
    read = (0, 0) if example.reference is None else example.reference
    return np.array([losses.sum(), hits.sum(), len(losses), *read], dtype=np.float64)


def _observe(logits: npt.NDArray[np.float32], example: Example) -> Floats:
    return _reduce(*token_losses(logits, example), example)


def _measure(observed: Floats, settings: Settings) -> Mapping[str, Scores]:  # noqa: ARG001
    """Return the loss, the hits and the perplexity, and what does not depend on the tokenizer."""
    loss, correct, tokens, read, words = observed.T
    scores = {"loss": Scores(loss, tokens), "top1": Scores(correct, tokens, bounds=SHARE)}
    if read.any():
        scores["bits per byte"] = Scores(loss / math.log(2), read)
    per_word = perplexity(loss, words) if words.any() else {}
    return {
        **scores,
        **perplexity(loss, tokens),
        **{f"word {name}": scores for name, scores in per_word.items()},
    }


CAUSAL = Task(
    name="clm",
    title="causal language modelling",
    metric="loss",
    unit="nats per token",
    head="clm",
    read=_read,
    prepare=predict_next,
    observe=_observe,
    measure=_measure,
    further=(f"{INVERTED}top1",),
    naive=naive_tokens,
    reduce=_reduce,
    options={"block": None, "stride": None, "bos": False, **TEXT_OPTIONS},
)
