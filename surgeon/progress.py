"""How long-running steps tell whoever called them how far they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with the name of the step, the units done and the units in all (0: not known)."""


def silent(step: str, done: int, total: int) -> None:
    """Say nothing: the default of every function that takes a ``Progress``."""


def duration(seconds: float) -> str:
    """Return a time in words, as exact as an estimate is."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
