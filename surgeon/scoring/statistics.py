"""How sure a difference is: over the examples (bootstrap), and among random removals (controls)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from surgeon.scoring.tasks.task import Floats, Scores, Statistic, ratio_of_sums

CONFIDENCE = 0.95
RESAMPLES = 9999

_TIGHTEST = 100
_ELEMENTS = 1_000_000  # resampled at once: 8 MB of each column


def paired_interval(patched: Scores, baseline: Scores, seed: int) -> tuple[float, float]:
    """Return the 95% percentile bootstrap interval of patched − baseline.

    Examples are resampled, both variants together, and the score of the set is taken anew each
    time (Efron and Tibshirani 1993, chapter 13).
    """
    from scipy.stats import bootstrap

    difference = patched.total - baseline.total
    if not np.any(difference):
        return 0.0, 0.0
    columns: tuple[Floats, ...] = (patched.total, baseline.total, patched.weight)
    statistic = _difference_of(patched.statistic)
    if patched.statistic is ratio_of_sums:
        # The difference of two ratios with the same weights is one ratio.
        columns, statistic = (difference, patched.weight), _ratio
    result = bootstrap(
        columns,
        statistic,
        paired=True,
        vectorized=True,
        method="percentile",
        confidence_level=CONFIDENCE,
        n_resamples=RESAMPLES,
        batch=max(1, _ELEMENTS // difference.size),
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
    low, high = usual_range(damages)
    return min(low, *damages), max(high, *damages)


def usual_range(damages: Sequence[float]) -> tuple[float, float]:
    """Return ``control_range`` without the controls beyond the fences, of which it holds none.

    A control there is no ordinary random removal: it may have hit an outlier itself.
    """
    first, third = np.quantile(np.asarray(damages, dtype=np.float64), [0.25, 0.75])
    reach = 1.5 * (third - first)
    return min(0.0, float(first - reach)), max(0.0, float(third + reach))


def chance_of_rank(damage: float, controls: Sequence[float]) -> float:
    """Return the chance that a random removal ranks as high among the controls.

    The permutation p-value (1 + controls at least as bad) / (1 + controls), Phipson and Smyth
    2010, "Permutation p-values should never be zero".
    """
    return (1 + sum(control >= damage for control in controls)) / (1 + len(controls))


def confidence_sequence(patched: Scores, baseline: Scores) -> tuple[float, float]:
    """Return a 95% interval of patched − baseline that may be looked at after every example.

    The asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas 2024
    ("Time-uniform central limit theory and asymptotic confidence sequences", theorem 2.2), on the
    linearised residuals of the ratio of sums. Unlike an interval of fixed size, it holds at all
    sample sizes at once, so that stopping when it settles a question is no cheating. The examples
    must come in random order.
    """
    difference, weight = patched.total - baseline.total, patched.weight
    count = difference.size
    ratio = difference.sum() / weight.sum()
    deviation = float(np.std((difference - ratio * weight) / weight.mean()))
    alpha = 1 - CONFIDENCE
    # Tightest around _TIGHTEST examples (their equation 10); valid at any other number too.
    rho = (-2 * math.log(alpha) + math.log(1 - 2 * math.log(alpha))) / _TIGHTEST
    inner = count * rho + 1
    reach = deviation * math.sqrt(2 * inner / (count**2 * rho) * math.log(math.sqrt(inner) / alpha))
    return float(ratio - reach), float(ratio + reach)


def _ratio(total: Floats, weight: Floats, axis: int) -> Floats:
    return ratio_of_sums(np.moveaxis(total, axis, -1), np.moveaxis(weight, axis, -1))


def _difference_of(statistic: Statistic) -> Callable[..., Floats]:
    def difference(patched: Floats, baseline: Floats, weight: Floats, axis: int) -> Floats:
        first, second, common = (np.moveaxis(x, axis, -1) for x in (patched, baseline, weight))
        return statistic(first, common) - statistic(second, common)

    return difference
