"""Texts → examples: what reading them takes, and what it gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from surgeon.scoring.examples import Encoded, Example, encode_all

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class Encoder:
    """A tokenizer, the most tokens of a sequence, and the token for what it does not know."""

    tokenizer: Tokenizer
    max_length: int
    unknown_id: int | None

    def encode(self, texts: Sequence[str | tuple[str, str]]) -> Encoded:
        """Tokenize texts or pairs of texts, special tokens included, cut to the length."""
        return encode_all(texts, self.tokenizer, self.max_length, self.unknown_id)


@dataclass(frozen=True)
class Prepared:
    """Examples, and how they came about.

    ``given`` is the number of texts or rows; ``truncated`` of their sequences were cut, and
    ``unknown`` tokens are not in the vocabulary. ``unit`` is what an example is one of, in the
    plural, and ``notes`` say what a reader should know of how the data were read.
    """

    examples: tuple[Example, ...]
    given: int
    truncated: int
    unknown: int
    unit: str = "texts"
    notes: tuple[str, ...] = ()


def prepare_all(
    encoded: Encoded,
    prepare: Callable[[tuple[int, ...]], Example | None],
    given: int,
    unit: str,
) -> Prepared:
    """Make an example of each sequence that has something to score, with its token types."""
    examples = []
    for ids, types in zip(encoded.sequences, encoded.types, strict=True):
        example = prepare(ids)
        if example is not None:
            fits = any(types) and len(example.ids) == len(types)
            examples.append(dataclasses.replace(example, types=types) if fits else example)
    return Prepared(tuple(examples), given, encoded.truncated, encoded.unknown, unit)
