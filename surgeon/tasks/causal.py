"""Causal language modelling: the loss on every token but the first, given those before it.

With ``bos`` a text begins with the BOS token, so that its own first token is scored too. A text
longer than the model's length is read in windows that overlap: each token is scored once, with at
least (length − stride) tokens before it. Each window is an example.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from surgeon.errors import EvaluationError
from surgeon.tasks.examples import Encoder, Example, Prepared
from surgeon.tasks.masked import MASKED
from surgeon.tasks.sequences import TEXT_OPTIONS
from surgeon.tasks.task import Data, Settings

if TYPE_CHECKING:
    from tokenizers import Encoding

FIRST_NOT_SCORED = (
    "the first token is not scored, because nothing comes before it; bos puts the tokenizer's "
    "BOS token there, as lm-eval does"
)
Stream: TypeAlias = tuple[tuple[int, ...], npt.NDArray[np.int64]]
"""Tokens in a row, and the bytes of UTF-8 and the words that each ends, (tokens, 2).

Words are counted as lm-eval does: one more than there are gaps of white space in a text.
"""


def predict_next(ids: tuple[int, ...], settings: Settings) -> Example | None:
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
    texts, length = data.lines, encoder.max_length
    stride = settings.stride or max(1, length // 2)
    if stride >= length:
        raise EvaluationError(
            f"`stride` {stride}: give a number below {length}, the tokens that the model reads at "
            "once, so that each has some before it"
        )
    if settings.block is not None and settings.stride is not None:
        raise EvaluationError(
            f"`stride` {stride}: is for texts longer than the model reads, and `block` leaves "
            "none; give one of them"
        )
    if settings.block is None:
        streams, unit = _streams(texts, encoder, special=True), "texts"
    else:
        streams, unit = _blocks(texts, encoder, settings.block), "blocks"
    examples = []
    for ids, read in streams:
        ends = np.cumsum(read, axis=0)
        for start, first, end in windows(len(ids), length, stride):
            examples.append(
                Example(
                    ids=ids[start:end],
                    positions=np.arange(first - 1 - start, end - 1 - start),
                    labels=np.array(ids[first:end], dtype=np.int64),
                    reference=ends[end - 1] - ends[first - 1],
                )
            )
    empty = sum(len(ids) < 2 for ids, _ in streams)
    if unit == "texts" and len(examples) > len(streams) - empty:
        unit = "windows"
    return Prepared(
        tuple(examples),
        given=len(examples) + empty,
        truncated=0,
        unknown=encoder.count_unknown(ids for ids, _ in streams),
        tokens=sum(len(ids) for ids, _ in streams),
        unit=unit,
        notes=() if encoder.frame_of(texts).before else (FIRST_NOT_SCORED,),
    )


def _streams(texts: Sequence[str], encoder: Encoder, *, special: bool) -> list[Stream]:
    """Return the tokens of each text; none of a text that has none of its own."""
    encodings = encoder.each(texts, add_special_tokens=special)
    return [
        (tuple(encoding.ids), _read_by(text, encoding))
        if 0 in encoding.special_tokens_mask
        else ((), np.empty((0, 2), dtype=np.int64))
        for text, encoding in zip(texts, encodings, strict=True)
    ]


def _blocks(texts: Sequence[str], encoder: Encoder, block: int) -> list[Stream]:
    """Join the tokens of all texts and cut them to blocks, each with the special tokens of one."""
    frame, streams = encoder.frame_of(texts), _streams(texts, encoder, special=False)
    # Without a token before it, the first of a block is not scored: it takes two.
    size = encoder.room_in(block, max(1, frame.special)) + (frame.special == 0)
    joined = [token for ids, _ in streams for token in ids]
    read = np.concatenate([read for _, read in streams])
    around = ((len(frame.before), len(frame.after)), (0, 0))
    return [
        (
            (*frame.before, *joined[start : start + size], *frame.after),
            np.pad(read[start : start + size], around),
        )
        for start in range(0, len(joined), size)
    ]


def _read_by(text: str, encoding: Encoding) -> npt.NDArray[np.int64]:
    """Return the bytes and words that each token ends; the last ends the text.

    They are 0 where the tokenizer does not say where in its text a token is.
    """
    if not encoding.offsets:
        return np.zeros((len(encoding.ids), 2), dtype=np.int64)
    ends = np.maximum.accumulate([0, *(end for _, end in encoding.offsets)])
    ends[-1] = len(text)
    places = np.cumsum([0, *(len(character.encode()) for character in text)], dtype=np.int64)
    gaps = [gap.start() for gap in re.finditer(r"\s+", text)]
    words = np.searchsorted(gaps, ends)
    words[-1] += 1
    return np.stack([np.diff(places[ends]), np.diff(words)], axis=1)


CAUSAL = dataclasses.replace(
    MASKED,
    name="clm",
    title="causal language modelling",
    unit="nats per token",
    heads=("clm",),
    reader=_read,
    prepare=predict_next,
    options={"block": None, "stride": None, "bos": False, **TEXT_OPTIONS},
)
