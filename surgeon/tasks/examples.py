"""Text → token sequences, and examples → batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from surgeon.errors import EvaluationError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


Batch: TypeAlias = Mapping[str, npt.NDArray[Any]]
Side: TypeAlias = Literal["left", "right"]

MOST_TOKENS = 2048
"""The tokens of a batch, padding included, where nothing else is asked for."""

_ENCODED_AT_ONCE = 4096  # texts: what the tokenizer makes of each takes some kilobytes
_OUTPUT_ELEMENTS = 48_000_000  # of the scored output at one time: 192 MB in float32


_EMPTY = np.empty(0, dtype=np.int64)
_EMPTY.flags.writeable = False


def _nothing() -> npt.NDArray[np.int64]:
    return _EMPTY  # one for all of the many examples that have none


@dataclass(frozen=True)
class Encoded:
    """Token sequences of the texts, in their order, cut to the model's length.

    A text of no token of its own, special ones aside, has none at all: there is nothing to score.
    ``types`` are the token types of each sequence. ``truncated`` counts the sequences that were
    cut, ``unknown`` the tokens that the tokenizer does not know.
    """

    sequences: tuple[tuple[int, ...], ...]
    truncated: int
    unknown: int
    types: tuple[tuple[int, ...], ...] = ()

    @property
    def tokens(self) -> int:
        """The number of tokens, special ones included."""
        return sum(map(len, self.sequences))


@dataclass(frozen=True, eq=False)
class Example:
    """What goes into the model, and what is asked of it.

    Attributes:
        ids: the tokens.
        positions: where the output is scored, (scored,); empty where it is so as a whole.
        labels: what is expected there, (scored,).
        types: the token types; empty for all 0.
        decoder_ids: what the decoder of an encoder-decoder takes.
        places: the place of each token in the order of prediction, 0 for what is given: each
            token sees those of lower places. Empty for a model that knows no such order.
        further: more sequences of the same example, such as the second sentence of two to compare.
        reference: what a task compares the output as a whole with.
    """

    ids: tuple[int, ...]
    positions: npt.NDArray[np.int64] = field(default_factory=_nothing)
    labels: npt.NDArray[np.int64] = field(default_factory=_nothing)
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


def encode_all(
    texts: Sequence[str | tuple[str, str]],
    tokenizer: Tokenizer,
    max_length: int,
    unknown_id: int | None,
) -> Encoded:
    """Tokenize texts or pairs of texts, special tokens included, and cut them to ``max_length``.

    Of a pair, the longer text is cut first.
    """
    sequences: list[tuple[int, ...]] = []
    types: list[tuple[int, ...]] = []
    truncated = 0
    same: dict[tuple[int, ...], tuple[int, ...]] = {}  # token types are all 0 as a rule
    for start in range(0, len(texts), _ENCODED_AT_ONCE):
        some = list(texts[start : start + _ENCODED_AT_ONCE])
        lengths = [len(encoding.ids) for encoding in tokenizer.encode_batch(some)]
        tokenizer.enable_truncation(max_length)
        cut = tokenizer.encode_batch(some)
        tokenizer.no_truncation()
        for length, encoding in zip(lengths, cut, strict=True):
            ordinary = 0 in encoding.special_tokens_mask
            sequences.append(tuple(encoding.ids) if ordinary else ())
            kinds = tuple(encoding.type_ids)
            types.append(same.setdefault(kinds, kinds))
            truncated += length > len(encoding.ids)
    counted = sum(ids.count(unknown_id) for ids in sequences) if unknown_id is not None else 0
    return Encoded(tuple(sequences), truncated, counted, tuple(types))


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
    largest = _OUTPUT_ELEMENTS // at_once
    batch: list[int] = []
    for number in sorted(range(len(examples)), key=lambda n: (examples[n].length, n)):
        larger = [*batch, number]
        padded, scored = _sizes(examples, larger)
        full = padded > tokens or (scored or padded) * width > largest
        if batch and (full if batch_size is None else len(batch) == batch_size):
            yield batch
            larger = [number]
        batch = larger
    if batch:
        yield batch


def _sizes(examples: Sequence[Example], batch: Sequence[int]) -> tuple[int, int]:
    """Return the tokens of a batch, padding included, and how many positions are scored."""
    rows = sum(len(examples[number].sequences) for number in batch)
    padded = rows * examples[batch[-1]].length  # the last is the longest
    return padded, sum(examples[number].scored for number in batch)


def make_batch(
    sequences: Sequence[Sequence[int]], inputs: Sequence[str], pad: int, side: Side = "right"
) -> Batch:
    """Pad token sequences on one side to one batch of shape (sequences, longest).

    ``inputs`` names the arrays that the graph takes; token types are all 0.
    """
    return batch_examples([Example(tuple(ids)) for ids in sequences], inputs, pad, side)


def batch_examples(
    examples: Sequence[Example], inputs: Sequence[str], pad: int, side: Side = "right"
) -> Batch:
    """Pad the first sequences of examples to one batch, with all that the graph takes."""
    return {name: _ARRAYS[name](examples, pad, side) for name in inputs}


def _padded(
    rows: Sequence[Sequence[int]], fill: int, side: Side, width: int | None = None
) -> npt.NDArray[np.int64]:
    width = max(map(len, rows)) if width is None else width
    array = np.full((len(rows), width), fill, dtype=np.int64)
    for row, values in enumerate(rows):
        start = width - len(values) if side == "left" else 0
        array[row, start : start + len(values)] = values
    return array


def _ids(examples: Sequence[Example], pad: int, side: Side) -> npt.NDArray[Any]:
    return _padded([e.ids for e in examples], pad, side)


def _mask(examples: Sequence[Example], pad: int, side: Side) -> npt.NDArray[Any]:  # noqa: ARG001
    return _padded([(1,) * len(e.ids) for e in examples], 0, side)


def _positions(examples: Sequence[Example], pad: int, side: Side) -> npt.NDArray[Any]:  # noqa: ARG001
    """Return the place of each token among those of its sequence, from 0 on."""
    return _padded([range(len(e.ids)) for e in examples], 0, side)


def _types(examples: Sequence[Example], pad: int, side: Side) -> npt.NDArray[Any]:  # noqa: ARG001
    return _padded([e.types for e in examples], 0, side, max(len(e.ids) for e in examples))


def _decoder_ids(examples: Sequence[Example], pad: int, side: Side) -> npt.NDArray[Any]:  # noqa: ARG001
    # Always on the right: a decoder sees no token after its own, so that padding changes nothing.
    return _padded([e.decoder_ids for e in examples], pad, "right")


def _perm_mask(examples: Sequence[Example], pad: int, side: Side) -> npt.NDArray[Any]:  # noqa: ARG001
    """Return 1 where a token (axis 1) may not see another (axis 2) (Yang et al. 2019, 2.2)."""
    places = _padded([e.places for e in examples], 0, side, max(len(e.ids) for e in examples))
    asked = places[:, None, :] > 0
    return (asked & (places[:, None, :] >= places[:, :, None])).astype(np.float32)


def _target_mapping(examples: Sequence[Example], pad: int, side: Side) -> npt.NDArray[Any]:  # noqa: ARG001
    """Return which token (axis 2) each target (axis 1) is; the targets come in text order."""
    places = _padded([e.places for e in examples], 0, side, max(len(e.ids) for e in examples))
    most = max(1, int((places > 0).sum(axis=1).max()))
    mapping = np.zeros((len(examples), most, places.shape[1]), dtype=np.float32)
    for row, tokens in enumerate(places):
        targets = np.flatnonzero(tokens)
        mapping[row, np.arange(len(targets)), targets] = 1
    return mapping


# What a graph may take, by the name of the input.
_ARRAYS: Mapping[str, Callable[[Sequence[Example], int, Side], npt.NDArray[Any]]] = {
    "input_ids": _ids,
    "attention_mask": _mask,
    "token_type_ids": _types,
    "position_ids": _positions,
    "decoder_input_ids": _decoder_ids,
    "perm_mask": _perm_mask,
    "target_mapping": _target_mapping,
}


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
