"""The small JSON files beside the weights, which are untrusted input like these."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeGuard

from surgeon.errors import CheckpointError

_DEEPEST = 100
_MOST_BYTES = 200_000_000
_LONGEST_NAME = 255  # characters that a file system takes, at most

Pairs: TypeAlias = list[tuple[str, Any]]
Errors: TypeAlias = Literal["strict", "surrogateescape"]


def parse_json(
    raw: bytes,
    object_of: Callable[[Pairs], dict[str, Any]] | None = None,
    errors: Errors = "strict",
) -> Any:
    """Parse JSON in UTF-8 that anybody may have written.

    ``object_of`` makes an object of its pairs, as ``json.loads`` has it; ``errors`` lets the names
    of files be what they are, which need not be text.

    Raises:
        ValueError: it is none, nested without end, too large, or holds what is no text.
    """
    if len(raw) > _MOST_BYTES:
        raise ValueError(f"{len(raw):,} bytes, and at most {_MOST_BYTES:,} are read")
    try:
        document = json.loads(raw.decode(), object_pairs_hook=object_of)
    except RecursionError as error:
        raise ValueError(f"nested more than {_DEEPEST} deep") from error
    level, depth = [document], 0
    while level := [part for part in level if isinstance(part, dict | list)]:
        if depth > _DEEPEST:
            raise ValueError(f"nested more than {_DEEPEST} deep")
        parts = (v.values() if isinstance(v, dict) else v for v in level)
        level, depth = [part for within in parts for part in within], depth + 1
    if b"\\u" in raw:
        try:
            json.dumps(document, ensure_ascii=False).encode(errors=errors)
        except UnicodeEncodeError as error:
            raise ValueError("it has half of a surrogate pair, which is no character") from error
    return document


def parse_object(label: str, raw: bytes, errors: Errors = "strict") -> dict[str, Any]:
    """Parse a JSON object; ``label`` names its file in errors.

    Raises:
        CheckpointError: it is none.
    """
    try:
        document = parse_json(raw.removeprefix(codecs.BOM_UTF8), errors=errors)
    except ValueError as error:
        raise CheckpointError(f"{label}: not valid JSON ({error})") from error
    if not isinstance(document, dict):
        raise CheckpointError(f"{label}: not a JSON object")
    return document


def read_object(path: Path, errors: Errors = "strict") -> dict[str, Any] | None:
    """Read the JSON object that a file holds; None without the file.

    Raises:
        CheckpointError: it holds none.
    """
    return parse_object(str(path), path.read_bytes(), errors) if path.is_file() else None


def is_file_name(value: object) -> TypeGuard[str]:
    """Whether a value is the plain name of a file, which leads to no other folder."""
    if not isinstance(value, str) or value in ("", ".", "..") or len(value) > _LONGEST_NAME:
        return False
    return not any(mark in value for mark in "/\\\0")
