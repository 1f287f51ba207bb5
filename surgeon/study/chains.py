"""Sets of dims of which each holds the smaller ones: a dose, among sets that make none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import TypeAlias

Dims: TypeAlias = tuple[int, ...]


def chains(sets: Iterable[Dims]) -> list[tuple[Dims, ...]]:
    """Return the series of two or more nested sets, smallest set first, the longest series first.

    Each starts from a set that no other holds. Where several smaller ones are in it, such as both
    of its dims, it goes on with the one that it begins with; if it begins with none, it ends.
    """
    ordered = sorted(set(sets), key=len, reverse=True)
    tops = [
        dims
        for dims in ordered
        if not any(
            set(dims) < set(larger)
            for larger in takewhile(lambda other: len(other) > len(dims), ordered)  # noqa: B023
        )
    ]
    found = [_downwards(top, ordered) for top in tops]
    return sorted((chain for chain in found if len(chain) > 1), key=len, reverse=True)


def _downwards(top: Dims, ordered: Sequence[Dims]) -> tuple[Dims, ...]:
    chain = [top]
    for size in range(len(top) - 1, 0, -1):
        last = chain[-1]
        inside = [dims for dims in ordered if len(dims) == size and set(dims) < set(last)]
        if len(inside) > 1:
            inside = [dims for dims in inside if dims == last[:size]]
            if not inside:
                break
        chain += inside
    return tuple(reversed(chain))
