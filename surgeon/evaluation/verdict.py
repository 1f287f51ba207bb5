"""From numbers to a verdict: one rule, stated once."""

from __future__ import annotations

from typing import Literal, TypeAlias

from surgeon.evaluation.evidence import LEAST, Evidence

Verdict: TypeAlias = Literal["degraded", "intact", "inconclusive"]


def judge(
    damage: float,
    interval: tuple[float, float],
    control_range: tuple[float, float],
    evidence: Evidence,
) -> Verdict:
    """Judge a damage (how much worse the score got) by its interval and the controls' range.

    ``degraded``: the whole interval lies beyond the range, on the worse side.
    ``intact``: the damage lies within the range, so that removing random dimensions does as much;
    or no change was found, zero being in the interval, by a measurement as fine as the range is
    wide.
    ``inconclusive``: anything else, a score that became better beyond the range among it; any
    result on fewer than ``evidence.LEAST`` distinct examples; and no damage to a baseline that
    has no skill to lose.

    Args:
        damage: patched − baseline, in the metric's unit.
        interval: the 95% interval of the damage.
        control_range: where the damage of a random removal lies; zero is in it
            (``statistics.control_range``).
        evidence: what the examples and the baseline allow to conclude.
    """
    low, high = interval
    if evidence.distinct < LEAST:
        return "inconclusive"
    if low > control_range[1]:
        return "degraded"
    within = control_range[0] <= damage <= control_range[1]
    fine = (high - low) / 2 <= control_range[1] - control_range[0]
    unharmed = within or (low <= 0 <= high and fine)
    return "intact" if unharmed and evidence.unskilled is None else "inconclusive"


def is_settled(interval: tuple[float, float], control_range: tuple[float, float]) -> bool:
    """Whether more examples would not change the verdict, by an interval valid at any number.

    The whole interval lies beyond the range, or the whole of it within: stricter than ``judge``,
    which takes the damage alone for intact.
    """
    low, high = interval
    return low > control_range[1] or (control_range[0] <= low and high <= control_range[1])
