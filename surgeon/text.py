"""Texts to measure on: the samples in the package, or a text file, by lines or as a whole.

One sample evaluates and another ranks: a dimension chosen on the very texts that judge it would
look worse than it is.
"""

from __future__ import annotations

import codecs
import hashlib
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from surgeon.errors import EvaluationError

BUILT_IN = "built-in English sentences"
BUILT_IN_RANKING = "built-in ranking sentences"
_FINGERPRINT = 8  # bytes; two of 100,000 lines share one in 3 of a billion cases
_LONGEST = 255  # characters of a file's name
_SHOWN = 20  # characters of a text that was taken for a path


@dataclass(frozen=True)
class TextsUsed:
    """Which texts something rests on, without the texts themselves.

    ``sha256`` is that of the file, ``lines`` are the fingerprints of the lines that were used.
    """

    name: str
    sha256: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Texts:
    """Lines of text and where they came from.

    ``name`` is what a report calls them; ``raw`` are the bytes of the file, for its hash.
    """

    name: str
    lines: tuple[str, ...]
    raw: bytes

    def __repr__(self) -> str:
        return f"<Texts {self.name}: {len(self.lines):,}>"

    @classmethod
    def of(cls, lines: Iterable[object]) -> Texts:
        """Make texts of strings, each one text.

        Raises:
            EvaluationError: there is none, or one is something else.
        """
        # The letters of a string would be the texts, and the names of a table's columns.
        listed = isinstance(lines, Iterable) and getattr(lines, "ndim", 1) == 1
        if not listed or isinstance(lines, str | Mapping):
            raise EvaluationError("`texts`: give a list of strings, one for each text")
        texts = []
        for text in lines:
            if not isinstance(text, str):
                kind = type(text).__name__
                raise EvaluationError(f"`texts`: give strings, one for each text; found {kind}")
            texts.append(text)
        kept = nonblank(texts)
        if not kept:
            raise EvaluationError("`texts`: holds no text; give strings, one for each text")
        return cls("texts", kept, "\n".join(texts).encode(errors="surrogatepass"))

    @property
    def sha256(self) -> str:
        """The hash of the file."""
        return hashlib.sha256(self.raw).hexdigest()

    def used(self) -> TextsUsed:
        """Return what a record keeps of the texts."""
        return TextsUsed(self.name, self.sha256, tuple(map(fingerprint, self.lines)))


def fingerprint(line: str) -> str:
    """Return a short hash of a line; case and the width of its gaps do not count."""
    from blake3 import blake3

    return blake3(" ".join(line.casefold().split()).encode()).hexdigest(_FINGERPRINT)


def built_in_sample() -> Texts:
    """Return the sample that evaluates, written for the package: varied English sentences."""
    return _sample(BUILT_IN, "sentences.txt")


def ranking_sample() -> Texts:
    """Return the sample that ranks: sentences of the same kind, none of them in the other one."""
    return _sample(BUILT_IN_RANKING, "ranking_sentences.txt")


def _sample(name: str, file: str) -> Texts:
    raw = Path(__file__).with_name(file).read_bytes()
    return Texts(name, nonblank(lines_of(decoded(name, raw))), raw)


GivenTexts: TypeAlias = Texts | Sequence[str] | str | Path
"""What stands for texts: themselves, strings, or a file with one text per line."""


def as_texts(given: GivenTexts) -> Texts:
    """Return texts as they are, of strings, or of a file with one text per line.

    Raises:
        EvaluationError: as ``Texts.of`` or ``read_texts``.
    """
    if isinstance(given, Texts):
        return given
    return read_texts(given) if isinstance(given, str | Path) else Texts.of(given)


def read_texts(path: str | Path, *, document: bool = False) -> Texts:
    """Read a UTF-8 file: a text per line, blank lines left out, or the whole file as one text.

    Raises:
        EvaluationError: the file is missing, is not UTF-8, or holds no text.
    """
    path = Path(path)
    raw = read_data_file(path, "a text file")
    content = decoded(path.name, raw)
    texts = Texts(path.name, nonblank((content,) if document else lines_of(content)), raw)
    if not texts.lines:
        raise EvaluationError(f"`texts` {path}: the file holds no text; put one text on each line")
    return texts


def read_data_file(path: Path, kind: str) -> bytes:
    """Read a file of texts or rows; ``kind`` is what an error asks for.

    Raises:
        EvaluationError: there is no such file.
    """
    longest = max(map(len, path.parts), default=0)
    if ("\n" in str(path) or longest > _LONGEST) and not os.path.lexists(path):
        begins = repr(str(path)[:_SHOWN])
        raise EvaluationError(
            f"`texts`: {begins}… is text and not a path; give {kind}, or a list of strings"
        )
    if path.is_dir():
        raise EvaluationError(f"`texts` {path}: is a folder; give {kind} in it")
    if not (path.is_file() or path.is_fifo()):  # a device, which a record may name, has no end
        raise EvaluationError(f"`texts` {path}: no such file; give {kind}")
    return path.read_bytes()


def lines_of(content: str) -> list[str]:
    r"""Split text at the ends of its lines: \n, \r\n or \r alone.

    ``str.splitlines`` also splits at U+2028 and others, which a text or a JSON string may hold.
    """
    return [line.removesuffix("\n") for line in io.StringIO(content, newline=None)]


def nonblank(texts: Iterable[str]) -> tuple[str, ...]:
    """Leave out the texts of white space alone; the others stay as they are."""
    return tuple(text for text in texts if text.strip())


def decoded(name: str, raw: bytes) -> str:
    """Decode a file of texts or rows, which is UTF-8.

    Raises:
        EvaluationError: it is not, and the error says how to convert it.
    """
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        utf_16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        if b"\0" in raw and not utf_16:
            raise EvaluationError(
                f"`texts` {name}: a binary file; unpack it, or save it as UTF-8 text"
            ) from error
        likely, what = ("utf-16", "UTF-16") if utf_16 else ("latin1", "perhaps Latin-1")
        raise EvaluationError(
            f"`texts` {name}: not UTF-8 (byte {error.start}), {what}; convert it: "
            f"iconv -f {likely} -t utf-8 {name} > utf8-{name}"
        ) from error
