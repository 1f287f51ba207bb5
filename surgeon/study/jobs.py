"""What engines pass around: pieces of work in, rows out. What the work is, they do not know."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

from surgeon.errors import SurgeonError
from surgeon.harmless import shortened

Row: TypeAlias = dict[str, Any]
"""A line of results: plain JSON values by column."""

DONE, FAILED = "done", "failed"
_LONGEST = 2000  # characters of an error


class Item(Protocol):
    """A piece of work, which costs one row."""

    def to_json(self) -> dict[str, Any]:
        """Return what it is, as its row says it."""
        ...


class Worker(Protocol):
    """Does one piece after the other, in a process of its own."""

    def row(self, item: Any, /) -> Row:
        """Do a piece. Whatever goes wrong with it is in its row."""
        ...


class Setup(Protocol):
    """What all workers of a run share; it travels to them."""

    def worker(self) -> Worker:
        """Return a worker, in the process that it will live in."""
        ...


class Supply(Protocol):
    """The pieces that no worker has yet."""

    def __len__(self) -> int:
        """Return how many there are."""
        ...

    def take(self, after: Any, /) -> Any:
        """Return the next for a worker that has just done ``after``, None if there is none."""
        ...


def failed_row(item: Item, error: str, seconds: float = 0.0) -> Row:
    """Return the row of a piece that gave no result."""
    return {**item.to_json(), "status": FAILED, "error": error, "seconds": round(seconds, 3)}


def told(error: Exception) -> str:
    """Return what an error says: one line of bounded length, fit for a table and a terminal."""
    kind = "" if isinstance(error, SurgeonError) else f"{type(error).__name__}: "
    return f"{kind}{shortened(str(error), _LONGEST)}"
