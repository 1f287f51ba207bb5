"""A tokenizer out of an untrusted file: what it makes of a text is bounded, and its panics errors.

A few lines of tokenizer.json let it put a million characters in the place of one, or search with an
expression that never ends: the library then panics, which in Python is no ``Exception``.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from surgeon.errors import EvaluationError

if TYPE_CHECKING:
    from tokenizers import Encoding

_MOST_CHARACTERS = 1_000_000  # of a text as it is tokenized, which takes some 300 bytes for each
_MOST_GROWTH = 1000
_USUAL = 64  # characters that a normalization form of Unicode may make of one, and then some

_HALF = re.compile("[\ud800-\udfff]")
_captured = threading.RLock()


class BoundedTokenizer:
    """A ``tokenizers.Tokenizer`` that refuses what would take memory or time without end."""

    _tokenizer: Any
    _label: str
    _most: int

    def __init__(self, tokenizer: Any, label: str) -> None:
        growth = _growth(tokenizer)
        if growth > _MOST_GROWTH:
            raise EvaluationError(
                f"{label}: makes up to {growth:,} characters of one, and at most {_MOST_GROWTH:,} "
                "are taken; use the model's own tokenizer"
            )
        for name, value in (
            ("_tokenizer", tokenizer),
            ("_label", label),
            ("_most", _MOST_CHARACTERS // growth),
        ):
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._tokenizer, name, value)

    def encode(self, text: Any, *more: Any, **how: Any) -> Encoding:
        """Tokenize one text, list of words or pair, as the library does."""
        self._check([text, *more])
        encoded: Encoding = self._call(self._tokenizer.encode, text, *more, **how)
        return encoded

    def encode_batch(self, texts: Iterable[Any], **how: Any) -> list[Encoding]:
        """Tokenize several.

        Raises:
            EvaluationError: one is too long or no text, or the tokenizer fails on it.
        """
        texts = list(texts)
        self._check(texts)
        encoded: list[Encoding] = self._call(self._tokenizer.encode_batch, texts, **how)
        return encoded

    def _call(self, method: Callable[..., Any], *texts: Any, **how: Any) -> Any:
        with panics_as_errors(self._label):
            try:
                return method(*texts, **how)
            except Exception as error:  # the library raises plain Exception
                raise EvaluationError(f"{self._label}: the tokenizer fails ({error})") from error

    def _check(self, texts: list[Any]) -> None:
        for number, text in enumerate(texts, start=1):
            parts = [text] if isinstance(text, str) else list(text or ())
            length = sum(map(len, parts))
            if length > self._most:
                raise EvaluationError(
                    f"text {number} has {length:,} characters, and this tokenizer takes at most "
                    f"{self._most:,}; cut it, or put one text on each line"
                )
            for part in parts:
                if isinstance(part, str) and _HALF.search(part):
                    raise EvaluationError(
                        f"text {number} holds half of a surrogate pair, which is no character; "
                        "save the data as UTF-8 text"
                    )


@contextlib.contextmanager
def panics_as_errors(label: str) -> Iterator[None]:
    """Turn a panic of Rust code into an error, and keep what it writes off standard error.

    Raises:
        EvaluationError: there was one; ``label`` names the file that it is about.
    """
    with _captured, tempfile.TemporaryFile() as said:
        screen = os.dup(2)
        os.dup2(said.fileno(), 2)
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
                said.seek(0)
                os.write(2, said.read())


def _growth(tokenizer: Any) -> int:
    """Return how many characters a tokenizer may make of one, or 1 for a usual few."""
    parts = (tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.post_processor)
    declared = [json.loads(part.__getstate__()) for part in parts if part is not None]
    growth = 1
    for step in _steps(declared):
        growth *= max(1, _growth_of(step))
    return growth


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
