"""From numbers to a verdict: one rule, stated once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from surgeon.evaluation.evidence import LEAST, Evidence
from surgeon.scoring.statistics import control_range, usual_range

Verdict: TypeAlias = Literal["degraded", "intact", "inconclusive"]


def judge(
    damage: float,
    interval: tuple[float, float],
    controls: Sequence[float],
    evidence: Evidence,
) -> Verdict:
    """Judge a damage (how much worse the score got) by its interval and what random removals do.

    ``degraded``: the whole interval lies beyond the range of all controls, on the worse side
    (``statistics.control_range``).
    ``intact``: the damage lies within their usual range, so that removing random dimensions does
    as much (``statistics.usual_range``: not thanks to one control that hit an outlier); or no
    change was found, zero being in the interval, by a measurement as fine as that range is wide.
    ``inconclusive``: anything else, a score that became better beyond the range among it; any
    result on fewer than ``evidence.LEAST`` distinct examples; and no damage to a baseline that
    has no skill to lose.

    Args:
        damage: patched − baseline, in the metric's unit.
        interval: the 95% interval of the damage.
        controls: the damages of the random removals.
        evidence: what the examples and the baseline allow to conclude.
    """
    low, high = interval
    if evidence.distinct < LEAST:
        return "inconclusive"
    if low > control_range(controls)[1]:
        return "degraded"
    usual_low, usual_high = usual_range(controls)
    within = usual_low <= damage <= usual_high
    fine = (high - low) / 2 <= usual_high - usual_low
    unharmed = within or (low <= 0 <= high and fine)
    return "intact" if unharmed and evidence.unskilled is None else "inconclusive"


def is_settled(interval: tuple[float, float], controls: Sequence[float]) -> bool:
    """Whether more examples would not change the verdict, by an interval valid at any number.

    The whole interval lies beyond the range of all controls, or the whole of it within their
    usual range: stricter than ``judge``, which takes the damage alone for intact.
    """
    low, high = interval
    usual_low, usual_high = usual_range(controls)
    return low > control_range(controls)[1] or (usual_low <= low and high <= usual_high)
