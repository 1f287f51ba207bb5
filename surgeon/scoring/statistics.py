"""How sure a difference is: over the examples (bootstrap), and among random removals (controls)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from surgeon.scoring.tasks import Scores

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

    It spans all of them and zero, which is no damage at all, and at least Tukey's fences
    (quartiles ± 1.5 interquartile ranges; Tukey 1977, "Exploratory Data Analysis"). The extremes
    alone would not do: one random removal in K + 1 is worse than all of K controls. With the
    fences, for ten normally distributed ones, it is one in 37. Fences, unlike a standard
    deviation, hold when a control hits an outlier.
    """
    values = np.asarray(damages, dtype=np.float64)
    first, third = np.quantile(values, [0.25, 0.75])
    reach = 1.5 * (third - first)
    low, high = min(first - reach, values.min()), max(third + reach, values.max())
    return min(0.0, float(low)), max(0.0, float(high))


def chance_of_rank(damage: float, controls: Sequence[float]) -> float:
    """Return the chance that a random removal ranks as high among the controls.

    The permutation p-value (1 + controls at least as bad) / (1 + controls), Phipson and Smyth
    2010, "Permutation p-values should never be zero".
    """
    return (1 + sum(control >= damage for control in controls)) / (1 + len(controls))


def _ratio_of_sums(total: Any, weight: Any, axis: int) -> Any:
    return np.sum(total, axis=axis) / np.sum(weight, axis=axis)
