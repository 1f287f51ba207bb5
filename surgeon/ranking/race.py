"""A race of removals: all run on a few texts, and fewer on each block of texts that follows.

What decides are intervals that hold at all numbers of texts at once (``confidence_sequence``), at
an error that all candidates, random removals and rounds share: that any interval ever misses its
true damage, and so that a dimension is named in error, has the chance ``ERROR``. Nothing is
certain of a damage that is in so few texts that none of them has been seen.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from surgeon.tasks.statistics import Interval, confidence_sequence, control_range
from surgeon.tasks.task import Scores

Removal: TypeAlias = tuple[int, ...]
"""The dimensions that are removed together."""

ERROR = 0.05
FIRST_BLOCK = 4
"""Texts that all candidates run on; each later block doubles the number."""
_TIGHTEST = 16  # texts, about where most is decided


@dataclass(frozen=True)
class Damage:
    """What a removal did on some texts: the change of the metric, with its interval."""

    value: float
    interval: Interval
    texts: int


@dataclass(frozen=True)
class Race:
    """How a race ended.

    ``named`` are the candidates that met the criterion, strongest first, at most as many as were
    asked for, and ``undecided`` those that could yet do as much, or meet it, when the texts ran
    out. ``damages`` are what each did when it was last looked at. ``control_range`` is None where
    no random removal ran, since no candidate did the least damage.
    """

    named: tuple[Removal, ...]
    undecided: tuple[Removal, ...]
    damages: Mapping[Removal, Damage]
    control_range: Interval | None


def block_ends(texts: int, first: int = FIRST_BLOCK) -> Iterator[int]:
    """Yield how many texts there are after each block."""
    for power in itertools.count():
        yield min(first * 2**power, texts)
        if first * 2**power >= texts:
            return


def damage_of(after: Scores, before: Scores, error: float) -> Damage:
    """Return what a removal adds, with an interval that may be looked at after each block.

    Bounds are left aside: by them alone, hundreds of texts are needed to tell a small damage. So
    is a burn-in: the deviation is as if differences as large as the largest were yet to come. For
    the lower end, damages beyond Tukey's outer fence (the upper quartile + 3 interquartile ranges)
    count as if they lay on it: the mean of less is less, and does not hang on a few texts.

    Args:
        after: the scores without what is removed.
        before: those to compare with.
        error: how often the interval may ever miss: the share of it in ``ERROR``.
    """
    after = replace(after, bounds=None)
    rates = (after.total - before.total) / after.weight
    first, third = np.sort(rates)[[rates.size // 4, 3 * rates.size // 4]]
    capped = np.minimum(rates, third + 3 * (third - first)) * after.weight
    (low, _), (_, high) = (
        confidence_sequence(scores, before, alpha=error, burn_in=1, tightest=_TIGHTEST)
        for scores in (replace(after, total=before.total + capped), after)
    )
    return Damage(after.value - before.value, (low, high), after.total.size)


def run_race(
    candidates: Sequence[Removal],
    controls: Sequence[Removal],
    measure: Callable[[Removal, int], Damage],
    blocks: Sequence[int],
    *,
    wanted: int,
    least: float,
) -> Race:
    """Race candidates until as many as are wanted are told from the rest, or the texts run out.

    A candidate is taken when its whole interval lies beyond the range of random removals and the
    ``least`` damage, on all texts when it lies beyond that range and the damage is the least or
    more. It is dropped when its interval lies below either, or below those of as many taken ones
    as are wanted. The random removals run once a candidate may do the least damage, and get another
    block only while one of their own intervals could keep a candidate from being taken.

    Args:
        candidates: what to remove.
        controls: the random removals.
        measure: gives the damage of a removal on a number of texts.
        blocks: how many texts there are after each block.
        wanted: how many to name.
        least: the least damage that counts.
    """
    measure = functools.cache(measure)
    running, damages = list(candidates), dict[Removal, Damage]()
    seen, chance = blocks[0], None
    for texts in blocks:
        taken = set[Removal]()
        damages.update({removal: measure(removal, texts) for removal in running})
        running = [removal for removal in running if damages[removal].interval[1] >= least]
        if not running:
            break
        low = {removal: damages[removal].interval[0] for removal in running}
        # Before the last block, what is taken must do the least damage for certain.
        sure = least if texts < blocks[-1] else -math.inf
        while True:
            random = [measure(removal, seen) for removal in controls]
            chance = _range_of([damage.value for damage in random])
            highest = _range_of([damage.interval[1] for damage in random])[1]
            bar = max(sure, chance[1])
            likely = (low[r] for r in running if damages[r].value >= least)
            if seen == texts or not any(bar < end <= highest for end in likely):
                break
            seen = blocks[blocks.index(seen) + 1]
        if seen < texts:
            bar = max(bar, highest)
        taken = {r for r in running if low[r] > bar and damages[r].value >= least}
        best = sorted((low[removal] for removal in taken), reverse=True)
        floor = chance[1] if seen == texts else least
        if len(best) >= wanted:
            floor = best[wanted - 1]  # which is beyond chance
        running = [removal for removal in running if damages[removal].interval[1] >= floor]
        taken &= set(running)
        if len(taken) == len(running) <= wanted:
            break
    order = sorted(taken, key=lambda removal: -damages[removal].value)
    named = tuple(order[:wanted])
    undecided = tuple(removal for removal in running if removal not in named)
    return Race(named, undecided, damages, chance)


def find_most(
    candidates: Sequence[Removal],
    scores: Callable[[Removal, int], Scores],
    blocks: Sequence[int],
    error: float,
) -> Removal:
    """Return the candidate that does most: the only one left, or the first when the texts run out.

    Each is held against the first so far, text by text, and dropped when it does less for certain.
    """
    error, running = error / len(candidates), list(candidates)
    for texts in blocks:
        found = {removal: scores(removal, texts) for removal in running}
        running.sort(key=lambda removal: -found[removal].value)
        first = found[running[0]]
        running[1:] = [
            removal
            for removal in running[1:]
            if damage_of(found[removal], first, error).interval[1] >= 0
        ]
        if len(running) == 1:
            break
    return running[0]


def _range_of(damages: Sequence[float]) -> Interval:
    """Return where random removals lie; one whose interval has no end leaves all to chance."""
    return control_range(damages) if np.isfinite(damages).all() else (-math.inf, math.inf)
