"""The tokenizer as plain facts and one file, which the ``tokenizers`` library alone can read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
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

_TOKENIZER = "tokenizer.json"
_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json")
_DIGITS = 10  # of the number of a token; no vocabulary has as many
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
        return _named(role, settings, tokenizer)

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
        length_or_none(settings[0].get("model_max_length")),
    )


def _named(role: str, settings: Sequence[Mapping[str, Any]], tokenizer: Tokenizer) -> int | None:
    """Return the token that the files beside a tokenizer name for a role."""
    token = next((beside[role] for beside in settings if beside.get(role) is not None), None)
    content = token.get("content") if isinstance(token, dict) else token
    found: int | None = tokenizer.token_to_id(content) if isinstance(content, str) else None
    return found


def beginning_id(directory: Path, facts: TokenizerFacts | None) -> int | None:
    """Return the token that text begins with: BOS, or EOS where there is none, as lm-eval has it.

    A tokenizer in Python alone puts no other token there than its own.
    """
    if facts is None or facts.kind != "tokenizers":
        return None
    tokenizer = read_tokenizer(directory, facts)
    folders = dict.fromkeys(((directory / facts.file).parent, directory))  # it may be in onnx/
    settings = [read_object(folder / name) or {} for folder in folders for name in _SETTINGS]
    found = (_named(role, settings, tokenizer) for role in ("bos_token", "eos_token"))
    return next((number for number in found if number is not None), None)


def begin_with(tokenizer: Tokenizer, token: int) -> None:
    """Let a tokenizer put one token before each text, and no other special one."""
    from tokenizers.processors import TemplateProcessing

    name = tokenizer.id_to_token(token)
    tokenizer.post_processor = TemplateProcessing(
        single=[name, "$A"], pair=[name, "$A", "$B:1"], special_tokens=[(name, token)]
    )


def count_or_none(value: Any, least: int, most: int) -> int | None:
    """Return what a file says, if it is an integer in a range."""
    return value if type(value) is int and least <= value <= most else None  # bool is none


def length_or_none(value: Any) -> int | None:
    """Return how many tokens a file says a text may have; None where that is no such number.

    XLNet's files say -1, and transformers writes 1e30 for none.
    """
    return count_or_none(value, least=2, most=UNBOUNDED - 1)


def most_tokens(directory: Path) -> tuple[int, Path]:
    """Return how many tokens a tokenizer's files number, and the file that has the last of them.

    One that cannot be read has none.

    Raises:
        CheckpointError: a file is damaged.
    """
    path, settings = directory / _TOKENIZER, directory / _SETTINGS[0]
    added = (read_object(settings) or {}).get("added_tokens_decoder")
    numbers = added if isinstance(added, dict) else ()
    files: dict[Path, Iterable[Any]] = {
        settings: [int(n) for n in numbers if n.isdecimal() and len(n) < _DIGITS]
    }
    if path.is_file():
        with contextlib.suppress(EvaluationError):  # who loads the model says why
            files[path] = _read(path).get_vocab().values()
    else:
        for name in ("vocab.json", "added_tokens.json"):
            files[directory / name] = (read_object(directory / name) or {}).values()
        if (vocabulary := directory / "vocab.txt").is_file():
            text = vocabulary.read_text("utf-8", "replace")
            files[vocabulary] = range(len(text.rstrip().split("\n")))
    last = {
        file: max((n for n in ids if type(n) is int), default=-1) for file, ids in files.items()
    }
    file = max(last, key=lambda one: last[one])
    return last[file] + 1, file


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
