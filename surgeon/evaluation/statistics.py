"""How sure a difference is: over the examples (bootstrap), and among random removals (controls)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from surgeon.evaluation.tasks import Scores

CONFIDENCE = 0.95
RESAMPLES = 9999


def paired_interval(patched: Scores, baseline: Scores, seed: int) -> tuple[float, float]:
    """Return the 95% percentile bootstrap interval of patched − baseline.

    Examples are resampled, both variants together, and the ratio of sums is taken anew each time
    (Efron and Tibshirani 1993, chapter 13).
    """
    from scipy.stats import bootstrap

    difference = patched.total - baseline.total
    if not np.any(difference):
        return 0.0, 0.0
    result = bootstrap(
        (difference, patched.weight),
        _ratio_of_sums,
        paired=True,
        vectorized=True,
        method="percentile",
        confidence_level=CONFIDENCE,
        n_resamples=RESAMPLES,
        batch=1000,
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def control_range(damages: Sequence[float]) -> tuple[float, float]:
    """Return the range in which a random removal's damage lies, by what the controls did.

    It spans all of them, and at least the 95% prediction interval for one more
    (mean ± t · s · √(1 + 1/K), Student's t with K − 1 degrees of freedom). The extremes alone
    would not do: one random removal in K + 1 is worse than all of K controls.
    """
    from scipy.stats import t

    values = np.asarray(damages, dtype=np.float64)
    count = values.size
    if count < 2:
        return -math.inf, math.inf
    reach = t.ppf((1 + CONFIDENCE) / 2, count - 1) * values.std(ddof=1) * math.sqrt(1 + 1 / count)
    low, high = values.mean() - reach, values.mean() + reach
    return float(min(low, values.min())), float(max(high, values.max()))


def chance_of_rank(damage: float, controls: Sequence[float]) -> float:
    """Return the chance that a random removal ranks as high among the controls.

    The permutation p-value (1 + controls at least as bad) / (1 + controls), Phipson and Smyth
    2010, "Permutation p-values should never be zero".
    """
    return (1 + sum(control >= damage for control in controls)) / (1 + len(controls))


def _ratio_of_sums(total: Any, weight: Any, axis: int) -> Any:
    return np.sum(total, axis=axis) / np.sum(weight, axis=axis)
