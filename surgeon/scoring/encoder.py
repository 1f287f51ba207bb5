"""Texts → examples: what reading them takes, and what it gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from surgeon.errors import EvaluationError
from surgeon.scoring.examples import Encoded, Example, encode_all

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MOST_UNKNOWN = 0.2  # share of unknown tokens from which texts do not fit the model


@dataclass(frozen=True)
class Encoder:
    """A tokenizer, the most tokens of a sequence, and the token for what it does not know."""

    tokenizer: Tokenizer
    max_length: int
    unknown_id: int | None

    def encode(self, texts: Sequence[str | tuple[str, str]]) -> Encoded:
        """Tokenize texts or pairs of texts, special tokens included, cut to the length."""
        return encode_all(texts, self.tokenizer, self.max_length, self.unknown_id)

    def check_known(self, encoded: Encoded, texts: Sequence[str], name: str) -> None:
        """Refuse texts that the model cannot read: it shows nothing on them.

        Args:
            encoded: the texts as tokens.
            texts: the texts; as they are in lower or upper case, they may be known.
            name: what an error calls them.

        Raises:
            EvaluationError: the tokenizer does not know too many of their tokens.
        """
        if not _is_unknown(encoded):
            return
        remedy = "give --data FILE, text of the kind that this model reads"
        for case, change in (("lower", str.lower), ("upper", str.upper)):
            if not _is_unknown(self.encode([change(text) for text in texts])):
                remedy = f"it knows them in {case} case: give --data FILE, the texts in {case} case"
        raise EvaluationError(
            f"{encoded.unknown} of {encoded.tokens} tokens of {name} are unknown to the tokenizer, "
            f"so nothing can be measured on them; {remedy}"
        )


def _is_unknown(encoded: Encoded) -> bool:
    return encoded.unknown > MOST_UNKNOWN * encoded.tokens


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
