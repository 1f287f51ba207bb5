"""The tokenizer as plain facts and one file, which the ``tokenizers`` library alone can read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from surgeon.errors import EvaluationError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class TokenizerFacts:
    """Where the tokenizer lies in the artifact, and the ids that scoring must know."""

    file: str
    mask_id: int | None
    pad_id: int
    unknown_id: int | None
    special_ids: tuple[int, ...]


def read_tokenizer(directory: Path, facts: TokenizerFacts | None) -> Tokenizer:
    """Read a tokenizer's file, without its own padding and truncation.

    Raises:
        EvaluationError: there is none, or it cannot be read.
    """
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
