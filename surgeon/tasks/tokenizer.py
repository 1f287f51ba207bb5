"""A model's tokenizer: where its file is, the ids that scoring must know, and safe calls of it."""

from __future__ import annotations

import base64
import contextlib
import json
import math
import os
import re
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from surgeon.errors import EvaluationError, SurgeonError
from surgeon.model.files import read_object

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer


UNBOUNDED = 1_000_000
"""Where a tokenizer knows no limit, its file has a number beyond this: transformers writes 1e30."""

TOKENIZER = "tokenizer.json"
_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json")
_DIGITS = 10  # of the number of a token; no vocabulary has as many
_MASKS = ("[MASK]", "<mask>")
_SENTINEL = re.compile(r"▁?<extra_id_(\d{1,4})>")
TOKEN_ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


@dataclass(frozen=True)
class TokenizerFacts:
    """Where the tokenizer lies in the artifact, and the ids that scoring must know.

    ``kind`` is the library that reads it: transformers for one that is Python code.
    """

    file: str
    mask_id: int | None
    pad_id: int
    unknown_id: int | None
    special_ids: tuple[int, ...]
    kind: Literal["tokenizers", "transformers"] = "tokenizers"


def find_tokenizer(directory: Path, folder: str, pad_id: Any) -> tuple[TokenizerFacts, int | None]:
    """Find ``tokenizer.json`` beside an ONNX file: in a directory, or below it in ``folder``.

    Returns its facts, and how long a text it takes in tokens (None: it does not say).

    ``tokenizer_config.json`` or ``special_tokens_map.json`` beside it name the tokens that mask,
    pad and stand for unknown words; a mask token is known by its usual names too. The
    configuration's ``pad_id`` comes first, if the vocabulary has it.

    Raises:
        CheckpointError: a file is damaged.
        EvaluationError: there is none, or it cannot be read.
    """
    places = (TOKENIZER, PurePosixPath(folder, TOKENIZER).as_posix())
    file = next((place for place in places if (directory / place).is_file()), None)
    if file is None:
        raise EvaluationError(
            f"{directory}: no tokenizer.json in it; put the model's own beside the ONNX file and "
            "patch again"
        )
    path = directory / file
    settings, tokenizer = _settings_in(path.parent), _read(path)
    size = tokenizer.get_vocab_size()
    special = {
        number
        for number, token in tokenizer.get_added_tokens_decoder().items()
        if token.special and number < size
    }

    named = {role: _named(f"{role}_token", settings, tokenizer) for role in TOKEN_ROLES}
    special.update(n for role, n in named.items() if n is not None and role != "mask")
    usual = (number for name in _MASKS if (number := tokenizer.token_to_id(name)) in special)
    mask, pad = named["mask"], count_or_none(pad_id, least=0, most=size - 1)
    facts = TokenizerFacts(
        file=file,
        mask_id=next(usual, None) if mask is None else mask,
        pad_id=(named["pad"] or 0) if pad is None else pad,
        unknown_id=named["unk"],
        special_ids=tuple(sorted(special)),
    )
    return facts, length_or_none(settings[0].get("model_max_length"))


def _settings_in(*folders: Path) -> list[Mapping[str, Any]]:
    return [read_object(folder / name) or {} for folder in folders for name in _SETTINGS]


def _named(role: str, settings: Sequence[Mapping[str, Any]], tokenizer: Tokenizer) -> int | None:
    """Return the token that the files beside a tokenizer name for a role."""
    token = next((beside[role] for beside in settings if beside.get(role) is not None), None)
    content = token.get("content") if isinstance(token, dict) else token
    found: int | None = tokenizer.token_to_id(content) if isinstance(content, str) else None
    return found


def beginning_id(directory: Path, facts: TokenizerFacts | None) -> int | None:
    """Return the token that text begins with: BOS, or EOS where there is none, as lm-eval has it.

    A tokenizer that is Python code puts no other token there than its own.
    """
    if facts is None or facts.kind != "tokenizers":
        return None
    tokenizer = read_tokenizer(directory, facts)
    settings = _settings_in((directory / facts.file).parent, directory)  # it may be in onnx/
    found = (_named(role, settings, tokenizer) for role in ("bos_token", "eos_token"))
    return next((number for number in found if number is not None), None)


def sentinels_of(tokenizer: Any, mask_id: int | None) -> tuple[int, ...]:
    """Return T5's sentinels in order, of a tokenizer without a mask token; mT5's begin with a ▁."""
    vocabulary = tokenizer.get_vocab() if mask_id is None else {}
    found = ((_SENTINEL.fullmatch(token), number) for token, number in vocabulary.items())
    return tuple(number for _, number in sorted((int(m[1]), number) for m, number in found if m))


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


def vocabulary_size(directory: Path) -> tuple[int, Path]:
    """Return how many tokens a tokenizer's files number, and the file that has the last of them.

    One that cannot be read has none.

    Raises:
        CheckpointError: a file is damaged.
    """
    path, settings = directory / TOKENIZER, directory / _SETTINGS[0]
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
    last = {f: max((n for n in ids if type(n) is int), default=-1) for f, ids in files.items()}
    file = max(last, key=last.__getitem__)
    return last[file] + 1, file


def read_tokenizer(
    directory: Path, facts: TokenizerFacts | None, first: int | None = None
) -> Tokenizer:
    """Read a tokenizer's file, without its own padding and truncation.

    With ``first``, it puts that token before each text, and no other special one.

    Raises:
        EvaluationError: there is none, or it cannot be read.
    """
    if facts is None:
        raise EvaluationError(
            f"{directory}: its source had no tokenizer; put the tokenizer's files "
            "(tokenizer.json, or vocab.txt and tokenizer_config.json) beside the weights and "
            "patch again"
        )
    file = directory / facts.file
    return _read(file, _settings_in(file.parent, directory), first)


def _read(
    path: Path, settings: Sequence[Mapping[str, Any]] = (), first: int | None = None
) -> Tokenizer:
    import tokenizers

    try:
        with panics_as_errors(str(path)):
            read = tokenizers.Tokenizer.from_file(str(path))
            if first is not None:
                begin_with(read, first)
            # As transformers has it: the settings come before the tokenizer's own file.
            sides = [beside.get("truncation_side") for beside in settings]
            sides.append((read.truncation or {}).get("direction"))
            tokenizer = BoundedTokenizer(read, str(path), next(filter(None, sides), "right"))
    except SurgeonError:
        raise
    except Exception as error:  # the library raises plain Exception
        raise EvaluationError(f"{path}: the tokenizer cannot be read ({error})") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer  # type: ignore[return-value]  # all that a tokenizer does, in bounds


MOST_CHARACTERS = 1_000_000  # of a text as it is tokenized, which takes some 300 bytes for each
_MOST_GROWTH = 1000
_USUAL = 64  # characters that a normalization form of Unicode may make of one, and then some

_SHOWN = 30  # characters of a text that an error quotes
_HALF = re.compile("[\ud800-\udfff]")
_captured = threading.RLock()


class BoundedTokenizer:
    """A ``tokenizers.Tokenizer`` that refuses what would take memory or time without end.

    ``most`` is the characters of a text that it takes.
    """

    def __init__(self, tokenizer: Any, label: str, side: Any = "right") -> None:
        growth = _growth(tokenizer)
        if growth > _MOST_GROWTH:
            raise EvaluationError(
                f"{label}: makes up to {growth:,} characters of one, and at most {_MOST_GROWTH:,} "
                "are taken; use the model's own tokenizer"
            )
        self.most = MOST_CHARACTERS // growth
        self._tokenizer, self._label = tokenizer, label
        self._side = "left" if side == "left" else "right"

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def enable_truncation(self, max_length: int, **how: Any) -> None:
        """Cut texts to a length, at the end that the model's files name (``truncation_side``)."""
        self._tokenizer.enable_truncation(max_length, direction=self._side, **how)

    def encode_batch(self, texts: Iterable[Any], **how: Any) -> list[Encoding]:
        """Tokenize texts, lists of words or pairs, as the library does.

        Raises:
            EvaluationError: one is too long or no text, or the tokenizer fails on it.
        """
        texts = list(texts)
        check_texts(texts, self.most)
        with panics_as_errors(self._label):
            try:
                encoded: list[Encoding] = self._tokenizer.encode_batch(texts, **how)
            except Exception as error:  # the library raises plain Exception
                raise EvaluationError(f"{self._label}: the tokenizer fails ({error})") from error
        return encoded


def check_texts(texts: Iterable[Any], most: int = MOST_CHARACTERS) -> None:
    """Refuse what no tokenizer takes, among texts, lists of words and pairs.

    Raises:
        EvaluationError: one has more than ``most`` characters, or half of one.
    """
    for text in texts:
        parts = [text] if isinstance(text, str) else list(text or ())
        length = sum(map(len, parts))
        if length > most:
            problem = (
                f"has {length:,} characters, and this tokenizer takes at most {most:,}; "
                "cut it, or put one text on each line"
            )
        elif any(isinstance(part, str) and _HALF.search(part) for part in parts):
            problem = (
                "holds half of a surrogate pair, which is not a character; save the data as "
                "UTF-8 text"
            )
        else:
            continue
        beginning = next(filter(None, parts))[:_SHOWN]
        raise EvaluationError(f"the text that begins with {beginning!r} {problem}")


@contextlib.contextmanager
def panics_as_errors(label: str) -> Iterator[None]:
    """Turn a panic of Rust code into an error, and keep what it writes off standard error.

    Raises:
        EvaluationError: there was one; ``label`` names the file that it is about.
    """
    with _captured, tempfile.TemporaryFile() as written:
        screen = os.dup(2)
        os.dup2(written.fileno(), 2)
        panicked = False
        try:
            yield
        except BaseException as error:
            panicked = type(error).__name__ == "PanicException"
            if panicked:
                raise EvaluationError(f"{label}: the tokenizer fails ({error})") from error
            raise
        finally:
            os.dup2(screen, 2)
            os.close(screen)
            if not panicked:
                written.seek(0)
                os.write(2, written.read())


def _growth(tokenizer: Any) -> int:
    """Return how many characters a tokenizer may make of one, or 1 for a usual few."""
    parts = (tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.post_processor)
    declared = [json.loads(part.__getstate__()) for part in parts if part is not None]
    return math.prod(max(1, _growth_of(step)) for step in _steps(declared))


def _steps(declared: Any) -> Iterator[dict[str, Any]]:
    if isinstance(declared, dict):
        yield declared
    for inner in declared.values() if isinstance(declared, dict) else declared:
        if isinstance(inner, list | dict):
            yield from _steps(inner)


def _growth_of(step: dict[str, Any]) -> int:
    match step:
        case {"type": "Replace", "pattern": {"String": str(replaced)}, "content": str(content)}:
            return -(-len(content) // max(1, len(replaced)))
        case {"type": "Replace", "content": str(content)}:  # an expression may match nothing
            return 1 + len(content) if len(content) > 1 else 1
        case {"type": "Prepend", "prepend": str(content)}:
            return len(content)
        case {"type": "Precompiled", "precompiled_charsmap": str(encoded)}:
            raw = base64.b64decode(encoded)
            longest = max(map(len, raw[4 + int.from_bytes(raw[:4], "little") :].split(b"\0")))
            return longest if longest > _USUAL else 1
        case {"type": "TemplateProcessing"}:
            return max(len(step.get(form) or ()) for form in ("single", "pair")) // _USUAL
        case _:
            return 1
