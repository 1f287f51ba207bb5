"""Text → token sequences, and sequences → batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from surgeon.text import Texts

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Batch: TypeAlias = Mapping[str, npt.NDArray[np.int64]]
Side: TypeAlias = Literal["left", "right"]

_OUTPUT_ELEMENTS = 48_000_000  # of one batch's scored output: 192 MB in float32
_MOST_TOKENS = 2048  # of one batch, padding included


@dataclass(frozen=True)
class Encoded:
    """Token sequences of the texts, in their order, cut to the model's length.

    ``truncated`` counts the sequences that were cut, ``unknown`` the tokens that the tokenizer
    does not know.
    """

    sequences: tuple[tuple[int, ...], ...]
    truncated: int
    unknown: int

    @property
    def tokens(self) -> int:
        """The number of tokens, special ones included."""
        return sum(map(len, self.sequences))


@dataclass(frozen=True, eq=False)
class Example:
    """What goes into the model, and what is asked of it.

    ``labels`` are the tokens expected at ``positions`` of the output, both of shape (scored,);
    empty where the output itself is the measure.
    """

    ids: tuple[int, ...]
    positions: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]


def encode(texts: Texts, tokenizer: Tokenizer, max_length: int, unknown_id: int | None) -> Encoded:
    """Tokenize texts, special tokens included, and cut them to ``max_length`` tokens."""
    whole = [encoding.ids for encoding in tokenizer.encode_batch(list(texts.lines))]
    tokenizer.enable_truncation(max_length)
    cut = [encoding.ids for encoding in tokenizer.encode_batch(list(texts.lines))]
    tokenizer.no_truncation()
    return Encoded(
        sequences=tuple(map(tuple, cut)),
        truncated=sum(len(a) > len(b) for a, b in zip(whole, cut, strict=True)),
        unknown=sum(ids.count(unknown_id) for ids in cut) if unknown_id is not None else 0,
    )


def batches_by_length(
    examples: Sequence[Example], width: int, batch_size: int | None = None
) -> Iterator[list[int]]:
    """Yield batches as lists of example numbers, of similar length.

    A batch has ``batch_size`` examples, or (None) as many as a budget of tokens holds, padding
    included. Sorted by length, little is padded: about twice as fast as in the order of arrival.
    ``width`` is the size of the output's last axis, which bounds the memory of a batch.
    """
    batch: list[int] = []
    for number in sorted(range(len(examples)), key=lambda n: (len(examples[n].ids), n)):
        larger = [*batch, number]
        full = _is_too_large(examples, larger, width)
        if batch and (full if batch_size is None else len(batch) == batch_size):
            yield batch
            larger = [number]
        batch = larger
    if batch:
        yield batch


def _is_too_large(examples: Sequence[Example], batch: Sequence[int], width: int) -> bool:
    padded = len(batch) * len(examples[batch[-1]].ids)  # the last is the longest
    scored = sum(examples[number].labels.size for number in batch)
    return padded > _MOST_TOKENS or (scored or padded) * width > _OUTPUT_ELEMENTS


def make_batch(
    sequences: Sequence[Sequence[int]], inputs: Sequence[str], pad: int, side: Side = "right"
) -> Batch:
    """Pad token sequences on one side to one batch of shape (sequences, longest).

    ``inputs`` names the arrays that the graph takes; token types are all 0.
    """
    shape = (len(sequences), max(map(len, sequences)))
    ids = np.full(shape, pad, dtype=np.int64)
    mask = np.zeros(shape, dtype=np.int64)
    for row, sequence in enumerate(sequences):
        start = shape[1] - len(sequence) if side == "left" else 0
        ids[row, start : start + len(sequence)] = sequence
        mask[row, start : start + len(sequence)] = 1
    arrays = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    return {name: arrays[name] for name in inputs}
