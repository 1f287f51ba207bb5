"""Where output goes, and how numbers and names look in it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from json import dump
from typing import Any

from rich.console import Console

SHOWN = 12
"""Numbers of a list that a table shows."""


def out() -> Console:
    """Return standard output."""
    return Console(highlight=False, soft_wrap=False)


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document to standard output."""
    dump(document, sys.stdout, indent=1, allow_nan=False)
    sys.stdout.write("\n")


def numbers(values: Sequence[int], limit: int | None = SHOWN) -> str:
    """Return numbers as a list for people, cut after ``limit``."""
    shown = ", ".join(map(str, values[:limit]))
    return f"{shown}, … ({len(values)})" if limit and len(values) > limit else shown


def escape(text: str) -> str:
    """Return text whose brackets are no markup."""
    from rich.markup import escape as escaped

    return escaped(text)
