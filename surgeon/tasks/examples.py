"""Texts → token sequences → examples, one by one and in batches: what goes into a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from surgeon.errors import EvaluationError

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer


Batch: TypeAlias = Mapping[str, npt.NDArray[Any]]
Side: TypeAlias = Literal["left", "right"]

MOST_TOKENS = 2048
"""The tokens of a batch, padding included, where nothing else is asked for."""

_OUTPUT_ELEMENTS = 48_000_000  # of the scored output at one time: 192 MB in float32
_EMPTY = np.empty(0, dtype=np.int64)  # one for all of the many examples that have none
_EMPTY.flags.writeable = False


@dataclass(frozen=True, eq=False)
class Example:
    """What goes into the model, and what is asked of it.

    Attributes:
        ids: the tokens.
        positions: where the output is scored, (scored,); empty where all of it is.
        labels: what is expected there, (scored,).
        types: the token types; empty for all 0.
        decoder_ids: what the decoder of an encoder-decoder takes.
        places: the place of each token in the order of prediction, 0 for what is given: each
            token sees those of lower places. Empty for a model that knows no such order.
        further: more sequences of the same example, such as the second sentence of two to compare.
        reference: what a task compares the output as a whole with.
    """

    ids: tuple[int, ...]
    positions: npt.NDArray[np.int64] = field(default_factory=lambda: _EMPTY)
    labels: npt.NDArray[np.int64] = field(default_factory=lambda: _EMPTY)
    types: tuple[int, ...] = ()
    decoder_ids: tuple[int, ...] = ()
    places: tuple[int, ...] = ()
    further: tuple[Example, ...] = ()
    reference: Any = None

    @property
    def sequences(self) -> tuple[Example, ...]:
        """All its sequences, this one first."""
        return (self, *self.further)

    @property
    def length(self) -> int:
        """The tokens of its longest sequence, in or out."""
        return max(max(len(e.ids), len(e.decoder_ids)) for e in self.sequences)

    @property
    def tokens(self) -> int:
        """The tokens of all its sequences."""
        return sum(len(sequence.ids) for sequence in self.sequences)

    @property
    def scored(self) -> int:
        """The scored positions of all its sequences."""
        return sum(sequence.labels.size for sequence in self.sequences)


def batches_by_length(
    examples: Sequence[Example],
    width: int,
    batch_size: int | None = None,
    *,
    tokens: int = MOST_TOKENS,
    at_once: int = 1,
) -> Iterator[list[int]]:
    """Yield batches as lists of example numbers, of similar length.

    A batch has ``batch_size`` examples, or (None) as many as a budget of ``tokens`` holds, padding
    included. Sorted by length, little is padded: about twice as fast as in the order of arrival.
    ``width`` is the size of the output's last axis, which bounds the memory of the batches that
    run ``at_once``.
    """
    batch: list[int] = []
    rows = scored = 0
    for number in sorted(range(len(examples)), key=lambda n: (examples[n].length, n)):
        example = examples[number]
        rows += len(example.sequences)
        scored += example.scored
        padded = rows * example.length  # the last is the longest
        full = padded > tokens or (scored or padded) * width > _OUTPUT_ELEMENTS // at_once
        if batch and (full if batch_size is None else len(batch) == batch_size):
            yield batch
            batch, rows, scored = [], len(example.sequences), example.scored
        batch.append(number)
    if batch:
        yield batch


def batch_examples(
    examples: Sequence[Example], inputs: Sequence[str], pad: int, side: Side = "right"
) -> Batch:
    """Pad the first sequences of examples on one side to one batch, (examples, longest).

    ``inputs`` names the arrays that the graph takes.
    """
    longest = max(len(e.ids) for e in examples)

    def padded(rows: Sequence[Sequence[int]], fill: int = 0) -> npt.NDArray[np.int64]:
        return _padded(rows, fill, side, longest)

    arrays: Mapping[str, Callable[[], npt.NDArray[Any]]] = {
        "input_ids": lambda: padded([e.ids for e in examples], pad),
        "attention_mask": lambda: padded([(1,) * len(e.ids) for e in examples]),
        "position_ids": lambda: padded([range(len(e.ids)) for e in examples]),
        "token_type_ids": lambda: padded([e.types for e in examples]),
        # Always on the right: a decoder sees no token after its own, so padding changes nothing.
        "decoder_input_ids": lambda: _padded([e.decoder_ids for e in examples], pad, "right"),
        "perm_mask": lambda: _perm_mask(padded([e.places for e in examples])),
        "target_mapping": lambda: _target_mapping(padded([e.places for e in examples])),
    }
    return {name: arrays[name]() for name in inputs}


def _padded(
    rows: Sequence[Sequence[int]], fill: int, side: Side, width: int = 0
) -> npt.NDArray[np.int64]:
    width = max(width, *map(len, rows))
    array = np.full((len(rows), width), fill, dtype=np.int64)
    for row, values in enumerate(rows):
        start = width - len(values) if side == "left" else 0
        array[row, start : start + len(values)] = values
    return array


def _perm_mask(places: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Return 1 where a token (axis 1) may not see another (axis 2) (Yang et al. 2019, 2.2)."""
    later = places[:, None, :] >= places[:, :, None]
    return ((places[:, None, :] > 0) & later).astype(np.float32)


def _target_mapping(places: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Return which token (axis 2) each target (axis 1) is; the targets come in text order."""
    most = max(1, int((places > 0).sum(axis=1).max()))
    mapping = np.zeros((len(places), most, places.shape[1]), dtype=np.float32)
    for row, tokens in enumerate(places):
        targets = np.flatnonzero(tokens)
        mapping[row, np.arange(len(targets)), targets] = 1
    return mapping


_MOST_UNKNOWN = 0.2  # share of the tokens, above which texts do not fit the model
_AT_ONCE = 64  # texts


@dataclass(frozen=True)
class Prepared:
    """Examples, and how they came about.

    ``given`` is the number of texts or rows; ``truncated`` of their sequences were cut, and
    ``unknown`` of all their ``tokens`` are not in the vocabulary. ``unit`` is what an example is
    one of, in the plural, and ``notes`` say what a reader should know of how the data were read.
    """

    examples: tuple[Example, ...]
    given: int
    truncated: int
    unknown: int
    tokens: int
    unit: str = "texts"
    notes: tuple[str, ...] = ()

    @property
    def mostly_unknown(self) -> bool:
        """Whether too few tokens are known: a model shows nothing on such texts."""
        return self.unknown > _MOST_UNKNOWN * self.tokens


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

    def encode(self, texts: Sequence[str | tuple[str, str]], **how: Any) -> Prepared:
        """Make an example of each text or pair of texts, of which nothing is asked yet.

        The special tokens are included, and it is cut to the length: of a pair, the longer text
        first. A text without a token of its own has no tokens: there is nothing to score.
        """
        examples: list[Example] = []
        truncated = 0
        for encoding, shorter in self.cut(texts, **how):
            ids = encoding.ids if 0 in encoding.special_tokens_mask else ()
            types = encoding.type_ids if any(encoding.type_ids) else ()
            examples.append(Example(tuple(ids), types=tuple(types)))
            truncated += shorter
        unknown = self.count_unknown(example.ids for example in examples)
        tokens = sum(len(example.ids) for example in examples)
        return Prepared(tuple(examples), len(texts), truncated, unknown, tokens)

    def cut(self, texts: Sequence[Any], **how: Any) -> Iterator[tuple[Encoding, bool]]:
        """Yield the tokens of each text, cut to the length, and whether they were more.

        The special tokens at both ends stay, as transformers keeps them.
        """
        for start in range(0, len(texts), _AT_ONCE):
            some = texts[start : start + _AT_ONCE]
            whole = list(self.each(some, **how))
            long = [n for n, encoding in enumerate(whole) if len(encoding.ids) > self.max_length]
            self.tokenizer.enable_truncation(self.max_length)
            try:
                cut = dict(zip(long, self.each([some[n] for n in long], **how), strict=True))
            finally:
                self.tokenizer.no_truncation()
            yield from ((cut.get(n, encoding), n in cut) for n, encoding in enumerate(whole))

    def each(self, texts: Sequence[Any], **how: Any) -> Iterator[Encoding]:
        """Yield the tokens of each text, a few at a time: what the library keeps of them is large.

        Of a pair that is cut it keeps each piece of the one with each of the other.
        """
        for start in range(0, len(texts), _AT_ONCE):
            yield from self.tokenizer.encode_batch(texts[start : start + _AT_ONCE], **how)

    def cut_in_blocks(self, texts: Sequence[str], block: int) -> Prepared:
        """Join the tokens of all texts and cut them to blocks; the last may be shorter.

        Each has ``block`` tokens, with the special ones that the tokenizer puts around a text.

        Raises:
            EvaluationError: no block of that size fits the special tokens or the model.
        """
        frame = self.frame_of(texts)
        size = self.room_in(block, frame.special)
        encodings = self.each(texts, add_special_tokens=False)
        stream = tuple(token for encoding in encodings for token in encoding.ids)
        bodies = [stream[start : start + size] for start in range(0, len(stream), size)]
        first, last = frame.types
        examples = tuple(
            Example((*frame.before, *body, *frame.after), types=(*first, *(0 for _ in body), *last))
            for body in bodies
        )
        unknown, tokens = self.count_unknown([stream]), sum(len(e.ids) for e in examples)
        return Prepared(examples, len(examples), 0, unknown, tokens, "blocks")

    def count_unknown(self, sequences: Iterable[Sequence[Any]]) -> int:
        """Return how many tokens of some sequences the tokenizer does not know."""
        return sum(ids.count(self.unknown_id) for ids in sequences)

    def frame_of(self, texts: Sequence[str]) -> Frame:
        """Return what the tokenizer puts around the first text that has tokens of its own."""
        for encoding in self.each(texts):
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

    def check_known(self, encoded: Prepared, texts: Sequence[str], name: str) -> None:
        """Refuse texts that the model cannot read: it shows nothing on them.

        Args:
            encoded: what was made of the texts.
            texts: the texts; as they are in lower or upper case, they may be known.
            name: what an error calls them.

        Raises:
            EvaluationError: the tokenizer does not know too many of their tokens.
        """
        if not encoded.mostly_unknown:
            return
        remedy = "give `texts` FILE, text of the kind that this model reads"
        as_is = self.encode(texts)
        for case, change in (("lower", str.lower), ("upper", str.upper)):
            changed = self.encode([change(text) for text in texts])
            if changed.unknown < as_is.unknown and not changed.mostly_unknown:
                remedy = f"it knows them in {case} case: give `texts` FILE, in {case} case"
        raise EvaluationError(
            f"{encoded.unknown} of {encoded.tokens} tokens of {name} are unknown to the tokenizer, "
            f"so nothing can be measured on them; {remedy}"
        )
