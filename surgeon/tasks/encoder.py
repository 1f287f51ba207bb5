"""Texts → token sequences → examples, by the tokenizer of the model that reads them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from surgeon.errors import EvaluationError
from surgeon.tasks.examples import Example

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MOST_UNKNOWN = 0.2
"""The share of unknown tokens above which texts do not fit the model."""

_AT_ONCE = 4096  # texts: what the tokenizer makes of each takes some kilobytes


@dataclass(frozen=True)
class Encoded:
    """Token sequences of the texts, in their order, cut to the model's length.

    A text of no token of its own, special ones aside, has none at all: there is nothing to score.
    ``types`` are the token types of each sequence, () for all 0. ``truncated`` counts the
    sequences that were cut, ``unknown`` the tokens that the tokenizer does not know.
    """

    sequences: tuple[tuple[int, ...], ...]
    truncated: int
    unknown: int
    types: tuple[tuple[int, ...], ...]

    @property
    def tokens(self) -> int:
        """The number of tokens, special ones included."""
        return sum(map(len, self.sequences))

    @property
    def examples(self) -> list[Example]:
        """Each sequence as an example of which nothing is asked yet."""
        pairs = zip(self.sequences, self.types, strict=True)
        return [Example(ids, types=types) for ids, types in pairs]


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


@dataclass(frozen=True)
class Frame:
    """The special tokens that a tokenizer puts before and behind a text, and their types."""

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    types: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())

    @property
    def special(self) -> int:
        """How many they are."""
        return len(self.before) + len(self.after)


@dataclass(frozen=True)
class Encoder:
    """A tokenizer, the most tokens of a sequence, and the token for what it does not know."""

    tokenizer: Tokenizer
    max_length: int
    unknown_id: int | None

    def encode(self, texts: Sequence[str | tuple[str, str]]) -> Encoded:
        """Tokenize texts or pairs of texts, special tokens included, cut to the length.

        Of a pair, the longer text is cut first.
        """
        sequences: list[tuple[int, ...]] = []
        types: list[tuple[int, ...]] = []
        truncated = 0
        for start in range(0, len(texts), _AT_ONCE):
            some = list(texts[start : start + _AT_ONCE])
            lengths = [len(encoding.ids) for encoding in self.tokenizer.encode_batch(some)]
            self.tokenizer.enable_truncation(self.max_length)
            cut = self.tokenizer.encode_batch(some)
            self.tokenizer.no_truncation()
            for length, encoding in zip(lengths, cut, strict=True):
                ordinary = 0 in encoding.special_tokens_mask
                sequences.append(tuple(encoding.ids) if ordinary else ())
                types.append(tuple(encoding.type_ids) if any(encoding.type_ids) else ())
                truncated += length > len(encoding.ids)
        return Encoded(tuple(sequences), truncated, self.count_unknown(sequences), tuple(types))

    def cut_in_blocks(self, texts: Sequence[str], block: int) -> Encoded:
        """Join the tokens of all texts and cut them to blocks; the last may be shorter.

        Each has ``block`` tokens, with the special ones that the tokenizer puts around a text.

        Raises:
            EvaluationError: no block of that size fits the special tokens or the model.
        """
        frame = self.frame_of(texts)
        size = self.room_in(block, frame.special)
        encodings = self.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        stream = tuple(token for encoding in encodings for token in encoding.ids)
        bodies = [stream[start : start + size] for start in range(0, len(stream), size)]
        first, last = frame.types
        return Encoded(
            sequences=tuple((*frame.before, *body, *frame.after) for body in bodies),
            truncated=0,
            unknown=self.count_unknown([stream]),
            types=tuple((*first, *(0 for _ in body), *last) for body in bodies),
        )

    def count_unknown(self, sequences: Iterable[Sequence[Any]]) -> int:
        """Return how many tokens of some sequences the tokenizer does not know."""
        return sum(ids.count(self.unknown_id) for ids in sequences)

    def frame_of(self, texts: Iterable[str]) -> Frame:
        """Return what the tokenizer puts around the first text that has tokens of its own."""
        for encoding in map(self.tokenizer.encode, texts):
            own = [n for n, special in enumerate(encoding.special_tokens_mask) if not special]
            if own:
                first, end = own[0], own[-1] + 1
                ids, types = tuple(encoding.ids), tuple(encoding.type_ids)
                return Frame(ids[:first], ids[end:], (types[:first], types[end:]))
        return Frame()

    def room_in(self, block: int, special: int) -> int:
        """Return how many tokens of text a block holds beside so many special ones.

        Raises:
            EvaluationError: none, or the block is longer than the model reads.
        """
        if not special < block <= self.max_length:
            raise EvaluationError(
                f"`block` {block}: give a number from {special + 1} to {self.max_length}, the "
                "tokens that the model reads at once"
            )
        return block - special

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
        remedy = "give `data` FILE, text of the kind that this model reads"
        for case, change in (("lower", str.lower), ("upper", str.upper)):
            if not _is_unknown(self.encode([change(text) for text in texts])):
                remedy = f"it knows them in {case} case: give `data` FILE, the texts in {case} case"
        raise EvaluationError(
            f"{encoded.unknown} of {encoded.tokens} tokens of {name} are unknown to the tokenizer, "
            f"so nothing can be measured on them; {remedy}"
        )


def _is_unknown(encoded: Encoded) -> bool:
    return encoded.unknown > MOST_UNKNOWN * encoded.tokens
