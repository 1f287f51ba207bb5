"""From numbers to a verdict: one rule, stated once."""

from __future__ import annotations

from typing import Literal, TypeAlias

Verdict: TypeAlias = Literal["degraded", "intact", "inconclusive"]


def judge(
    damage: float, interval: tuple[float, float], control_range: tuple[float, float]
) -> Verdict:
    """Judge a damage (how much worse the score got) by its interval and the controls' range.

    ``degraded``: the interval lies above zero and the damage above the range.
    ``intact``: the damage lies within the range, or below it without the score having become
    better beyond doubt; either way, removing random dimensions does as much.
    ``inconclusive``: anything else.

    Args:
        damage: patched − baseline, in the metric's unit.
        interval: the 95% interval of the damage.
        control_range: see ``statistics.control_range``.
    """
    low, high = interval
    if damage > control_range[1]:
        return "degraded" if low > 0 else "inconclusive"
    better_beyond_doubt = damage < control_range[0] and high < 0
    return "inconclusive" if better_beyond_doubt else "intact"
