"""The small JSON files beside the weights, which are untrusted input like these."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeGuard

from surgeon.errors import CheckpointError


def parse_object(label: str, raw: bytes) -> dict[str, Any]:
    """Parse a JSON object; ``label`` names its file in errors.

    Raises:
        CheckpointError: it is none.
    """
    document = parse_json(label, raw)
    if not isinstance(document, dict):
        raise CheckpointError(f"{label}: not a JSON object")
    return document


def parse_json(label: str, raw: bytes) -> Any:
    """Parse JSON; ``label`` names its file in errors.

    Raises:
        CheckpointError: it is none.
    """
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:  # the latter for brackets in brackets
        raise CheckpointError(f"{label}: not valid JSON ({error})") from error


def read_object(path: Path) -> dict[str, Any] | None:
    """Read the JSON object that a file holds; None without the file.

    Raises:
        CheckpointError: it holds none.
    """
    return parse_object(str(path), path.read_bytes()) if path.is_file() else None


def is_file_name(value: object) -> TypeGuard[str]:
    """Whether a value is the plain name of a file, which leads to no other folder."""
    if not isinstance(value, str) or value in ("", ".", ".."):
        return False
    return not any(mark in value for mark in "/\\\0")
