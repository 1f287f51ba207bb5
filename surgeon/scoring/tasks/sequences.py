"""Texts → token sequences: each text one, or the corpus in blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from surgeon.errors import EvaluationError
from surgeon.scoring.data import Table
from surgeon.scoring.encoder import Encoder, Prepared, prepare_all
from surgeon.scoring.examples import Encoded, Example
from surgeon.scoring.tasks.task import Data, Settings
from surgeon.text import Texts

TEXT_OPTIONS: Mapping[str, Any] = {"text_column": None, "document": False}


def lines_of(data: Data) -> Texts:
    """Return data that must be texts.

    Raises:
        EvaluationError: they are a table.
    """
    if isinstance(data, Table):
        raise EvaluationError(f"--data {data.name}: texts are needed, and these are labelled rows")
    return data


def read_sequences(
    prepare: Callable[[tuple[int, ...], Settings], Example | None],
    data: Data,
    encoder: Encoder,
    settings: Settings,
) -> Prepared:
    """Make an example of each text, cut to the model's length, or of each block."""
    texts = lines_of(data)
    if settings.block is None:
        encoded = encoder.encode(texts.lines)
    else:
        encoded = cut_in_blocks(texts, encoder, settings.block)
    unit, given = "texts", len(texts.lines)
    if settings.block is not None:
        unit, given = "blocks", len(encoded.sequences)
    return prepare_all(encoded, lambda ids: prepare(ids, settings), given, unit)


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


def frame_of(texts: Iterable[str], encoder: Encoder) -> Frame:
    """Return what the tokenizer puts around the first text that has tokens of its own."""
    for encoding in map(encoder.tokenizer.encode, texts):
        own = [n for n, special in enumerate(encoding.special_tokens_mask) if not special]
        if own:
            first, end = own[0], own[-1] + 1
            ids, types = tuple(encoding.ids), tuple(encoding.type_ids)
            return Frame(ids[:first], ids[end:], (types[:first], types[end:]))
    return Frame()


def room_in(block: int, special: int, encoder: Encoder) -> int:
    """Return how many tokens of text a block holds beside so many special ones.

    Raises:
        EvaluationError: none, or the block is longer than the model reads.
    """
    if not special < block <= encoder.max_length:
        raise EvaluationError(
            f"--block {block}: give a number from {special + 1} to {encoder.max_length}, the "
            "tokens that the model reads at once"
        )
    return block - special


def cut_in_blocks(texts: Texts, encoder: Encoder, block: int) -> Encoded:
    """Join the tokens of all texts and cut them to blocks; the last may be shorter.

    Each block has ``block`` tokens, with the special tokens that the tokenizer puts at both ends
    of a text.

    Raises:
        EvaluationError: no block of that size fits the special tokens or the model.
    """
    frame = frame_of(texts.lines, encoder)
    size = room_in(block, frame.special, encoder)
    encodings = encoder.tokenizer.encode_batch(list(texts.lines), add_special_tokens=False)
    stream = [token for encoding in encodings for token in encoding.ids]
    bodies = [stream[start : start + size] for start in range(0, len(stream), size)]

    return Encoded(
        sequences=tuple((*frame.before, *body, *frame.after) for body in bodies),
        truncated=0,
        unknown=stream.count(encoder.unknown_id) if encoder.unknown_id is not None else 0,
        types=tuple((*frame.types[0], *(0 for _ in body), *frame.types[1]) for body in bodies),
    )
