"""Text → token sequences, and sequences → batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from surgeon.errors import EvaluationError
from surgeon.onnx_model.facts import OnnxFacts, TokenizerFacts
from surgeon.text import Texts

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_OUTPUT_ELEMENTS = 48_000_000  # of one batch's output: 192 MB in float32
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


def encode(texts: Texts, directory: Path, facts: OnnxFacts) -> Encoded:
    """Tokenize texts with the artifact's own tokenizer, special tokens included.

    Raises:
        EvaluationError: the artifact has no tokenizer, or it cannot be read.
    """
    tokenizer = _load_tokenizer(directory, facts.tokenizer)
    limited = [encoding.ids for encoding in tokenizer.encode_batch(list(texts.lines))]
    tokenizer.enable_truncation(facts.max_length)
    cut = [encoding.ids for encoding in tokenizer.encode_batch(list(texts.lines))]
    unknown = facts.tokenizer.unknown_id if facts.tokenizer else None
    return Encoded(
        sequences=tuple(map(tuple, cut)),
        truncated=sum(len(a) > len(b) for a, b in zip(limited, cut, strict=True)),
        unknown=sum(ids.count(unknown) for ids in cut) if unknown is not None else 0,
    )


def batches_by_length(examples: Sequence[Example], width: int) -> Iterator[list[int]]:
    """Yield batches as lists of example numbers, of similar length, under a token budget.

    ``width`` is the size of the output's last axis, which bounds the memory of a batch.
    """
    budget = max(1, min(_MOST_TOKENS, _OUTPUT_ELEMENTS // max(1, width)))
    batch: list[int] = []
    for number in sorted(range(len(examples)), key=lambda n: (len(examples[n].ids), n)):
        if batch and (len(batch) + 1) * len(examples[number].ids) > budget:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def _load_tokenizer(directory: Path, facts: TokenizerFacts | None) -> Tokenizer:
    if facts is None:
        raise EvaluationError(
            f"{directory}: its source had no tokenizer; put the tokenizer's files "
            "(tokenizer.json, or vocab.txt and tokenizer_config.json) beside the weights and "
            "patch again"
        )
    import tokenizers

    path = directory / facts.file
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise EvaluationError(f"{path}: the tokenizer cannot be read ({error})") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
