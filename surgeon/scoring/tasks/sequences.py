"""Texts → token sequences: each text one, or the corpus in blocks."""

from __future__ import annotations

from collections.abc import Callable

from surgeon.errors import EvaluationError
from surgeon.scoring.data import Table
from surgeon.scoring.encoder import Encoder, Prepared, prepare_all
from surgeon.scoring.examples import Encoded, Example
from surgeon.scoring.tasks.task import Data, Settings
from surgeon.text import Texts


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
    given = len(texts.lines) if settings.block is None else len(encoded.sequences)
    return prepare_all(encoded, lambda ids: prepare(ids, settings), given)


def cut_in_blocks(texts: Texts, encoder: Encoder, block: int) -> Encoded:
    """Join the tokens of all texts and cut them to blocks; the last may be shorter.

    Each block has ``block`` tokens, with the special tokens that the tokenizer puts at both ends
    of a text.

    Raises:
        EvaluationError: no block of that size fits the special tokens or the model.
    """
    whole = encoder.tokenizer.encode(texts.lines[0])
    added = whole.special_tokens_mask
    before = next((n for n, special in enumerate(added) if not special), len(added))
    after = next((n for n, special in enumerate(reversed(added)) if not special), 0)
    size = block - before - after
    if size < 1 or block > encoder.max_length:
        raise EvaluationError(
            f"--block {block}: give a number from {before + after + 1} to {encoder.max_length}, "
            "the tokens that the model reads at once"
        )
    encodings = encoder.tokenizer.encode_batch(list(texts.lines), add_special_tokens=False)
    stream = [token for encoding in encodings for token in encoding.ids]
    bodies = [stream[start : start + size] for start in range(0, len(stream), size)]

    def framed(body: list[int], frame: list[int]) -> tuple[int, ...]:
        return (*frame[:before], *body, *frame[len(frame) - after :])

    return Encoded(
        sequences=tuple(framed(body, whole.ids) for body in bodies),
        truncated=0,
        unknown=stream.count(encoder.unknown_id) if encoder.unknown_id is not None else 0,
        types=tuple(framed([0] * len(body), whole.type_ids) for body in bodies),
    )
