"""Texts to measure on: the sample in the package, or a file with one text per line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from surgeon.errors import EvaluationError

BUILT_IN = "built-in English sentences"
_SAMPLE = Path(__file__).with_name("sentences.txt")


@dataclass(frozen=True)
class Texts:
    """Lines of text and where they came from.

    ``name`` is what a report calls them; ``raw`` are the bytes of the file, for its hash.
    """

    name: str
    lines: tuple[str, ...]
    raw: bytes


def built_in_sample() -> Texts:
    """Return the sample that ships with the package, written for it: varied English sentences."""
    return _parse(BUILT_IN, _SAMPLE.read_bytes())


def read_texts(path: Path) -> Texts:
    """Read a UTF-8 file with one text per line; empty lines are left out.

    Raises:
        EvaluationError: the file is missing, is not UTF-8, or holds no text.
    """
    if not path.is_file():
        raise EvaluationError(f"--data {path}: no such file; give a text file, one text per line")
    texts = _parse(path.name, path.read_bytes())
    if not texts.lines:
        raise EvaluationError(f"--data {path}: the file holds no text; put one text on each line")
    return texts


def _parse(name: str, raw: bytes) -> Texts:
    try:
        content = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise EvaluationError(
            f"--data {name}: not UTF-8 text (byte {error.start}); save the file as UTF-8"
        ) from error
    return Texts(name, tuple(line for line in map(str.strip, content.splitlines()) if line), raw)
