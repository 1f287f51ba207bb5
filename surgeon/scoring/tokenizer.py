"""The tokenizer as plain facts and one file, which the ``tokenizers`` library alone can read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from surgeon.checkpoint.json_object import parse_object
from surgeon.errors import EvaluationError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

UNBOUNDED = 1_000_000
"""Where a tokenizer knows no limit, its file has a number beyond this: transformers writes 1e30."""

_USUAL = 512  # tokens, where nothing says how many
_TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class TokenizerFacts:
    """Where the tokenizer lies in the artifact, and the ids that scoring must know."""

    file: str
    mask_id: int | None
    pad_id: int
    unknown_id: int | None
    special_ids: tuple[int, ...]


@dataclass(frozen=True)
class FoundTokenizer:
    """A tokenizer's facts, and how long a text it takes in tokens (None: it does not say)."""

    facts: TokenizerFacts
    longest: int | None


def find_tokenizer(directory: Path, folder: str, pad_id: Any) -> FoundTokenizer | None:
    """Find ``tokenizer.json`` in an artifact, or below it in ``folder``; None without one.

    Which tokens mask, pad and stand for unknown words is told by ``tokenizer_config.json`` or
    ``special_tokens_map.json`` beside it; the configuration's ``pad_id`` comes first.

    Raises:
        CheckpointError: a file is damaged.
        EvaluationError: the tokenizer cannot be read.
    """
    places = dict.fromkeys((_TOKENIZER, PurePosixPath(folder, _TOKENIZER).as_posix()))
    file = next((place for place in places if (directory / place).is_file()), None)
    if file is None:
        return None
    path = directory / file
    settings = {
        **_settings(path.with_name("special_tokens_map.json")),
        **_settings(path.with_name("tokenizer_config.json")),
    }
    tokenizer = _read(path)
    added = parse_object(str(path), path.read_bytes()).get("added_tokens") or ()
    special = {token["id"] for token in added if token.get("special")}

    def named(role: str) -> int | None:
        token = settings.get(role)
        content = token.get("content") if isinstance(token, dict) else token
        found: int | None = tokenizer.token_to_id(content) if isinstance(content, str) else None
        return found

    roles = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token")
    special.update(number for role in roles if (number := named(role)) is not None)
    declared = pad_id if isinstance(pad_id, int) and pad_id >= 0 else named("pad_token")
    longest = settings.get("model_max_length")
    return FoundTokenizer(
        TokenizerFacts(
            file=file,
            mask_id=named("mask_token"),
            pad_id=declared or 0,
            unknown_id=named("unk_token"),
            special_ids=tuple(sorted(special)),
        ),
        longest if isinstance(longest, int) and 0 < longest < UNBOUNDED else None,
    )


def _settings(path: Path) -> dict[str, Any]:
    return parse_object(str(path), path.read_bytes()) if path.is_file() else {}


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
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise EvaluationError(f"{path}: the tokenizer cannot be read ({error})") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
