"""The tokenizer as plain facts and one file, which the ``tokenizers`` library alone can read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from surgeon.checkpoint.json_object import read_object
from surgeon.errors import EvaluationError, SurgeonError
from surgeon.scoring.bounded_tokenizer import BoundedTokenizer, panics_as_errors

if TYPE_CHECKING:
    from tokenizers import Tokenizer

UNBOUNDED = 1_000_000
"""Where a tokenizer knows no limit, its file has a number beyond this: transformers writes 1e30."""

_USUAL = 512  # tokens, where nothing says how many
_TOKENIZER = "tokenizer.json"
_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json")
_MASKS = ("[MASK]", "<mask>")


@dataclass(frozen=True)
class TokenizerFacts:
    """Where the tokenizer lies in the artifact, and the ids that scoring must know.

    ``kind`` is the library that reads it: transformers what it has in Python alone.
    """

    file: str
    mask_id: int | None
    pad_id: int
    unknown_id: int | None
    special_ids: tuple[int, ...]
    kind: Literal["tokenizers", "transformers"] = "tokenizers"


@dataclass(frozen=True)
class FoundTokenizer:
    """A tokenizer's facts, and how long a text it takes in tokens (None: it does not say)."""

    facts: TokenizerFacts
    longest: int | None


def find_tokenizer(directory: Path, folder: str, pad_id: Any) -> FoundTokenizer | None:
    """Find ``tokenizer.json`` in an artifact, or below it in ``folder``; None without one.

    Which tokens mask, pad and stand for unknown words is told by ``tokenizer_config.json`` or
    ``special_tokens_map.json`` beside it, a mask token by its usual names too. The configuration's
    ``pad_id`` comes first, if the vocabulary has it.

    Raises:
        CheckpointError: a file is damaged.
        EvaluationError: the tokenizer cannot be read.
    """
    places = dict.fromkeys((_TOKENIZER, PurePosixPath(folder, _TOKENIZER).as_posix()))
    file = next((place for place in places if (directory / place).is_file()), None)
    if file is None:
        return None
    path = directory / file
    settings = [read_object(path.with_name(name)) or {} for name in _SETTINGS]
    tokenizer = _read(path)
    size = tokenizer.get_vocab_size()
    special = {
        number
        for number, token in tokenizer.get_added_tokens_decoder().items()
        if token.special and number < size
    }

    def named(role: str) -> int | None:
        tokens = (beside[role] for beside in settings if beside.get(role) is not None)
        token = next(tokens, None)
        content = token.get("content") if isinstance(token, dict) else token
        found: int | None = tokenizer.token_to_id(content) if isinstance(content, str) else None
        return found

    roles = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token")
    special.update(number for role in roles if (number := named(role)) is not None)
    usual = (number for name in _MASKS if (number := tokenizer.token_to_id(name)) in special)
    mask, pad = named("mask_token"), count_or_none(pad_id, least=0, most=size - 1)
    return FoundTokenizer(
        TokenizerFacts(
            file=file,
            mask_id=next(usual, None) if mask is None else mask,
            pad_id=(named("pad_token") or 0) if pad is None else pad,
            unknown_id=named("unk_token"),
            special_ids=tuple(sorted(special)),
        ),
        count_or_none(settings[0].get("model_max_length"), least=2, most=UNBOUNDED - 1),
    )


def count_or_none(value: Any, least: int, most: int) -> int | None:
    """Return what a file says, if it is an integer in a range."""
    return value if type(value) is int and least <= value <= most else None  # bool is none


def longest_text(positions: Any, offset: int, tokenizer: int | None) -> int:
    """Return how many tokens a sequence may have, by the model's positions and its tokenizer.

    ``offset`` of the positions are reserved. XLNet's, which are relative, say -1.
    """
    counted = isinstance(positions, int) and positions > 0
    limits = [positions - offset] if counted else []
    return min([*limits, *([tokenizer] if tokenizer else [])], default=_USUAL)


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
    return _read(directory / facts.file)


def _read(path: Path) -> Tokenizer:
    import tokenizers

    try:
        with panics_as_errors(str(path)):
            tokenizer = BoundedTokenizer(tokenizers.Tokenizer.from_file(str(path)), str(path))
    except SurgeonError:
        raise
    except Exception as error:  # the library raises plain Exception
        raise EvaluationError(f"{path}: the tokenizer cannot be read ({error})") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer  # type: ignore[return-value]  # all that a tokenizer does, in bounds
