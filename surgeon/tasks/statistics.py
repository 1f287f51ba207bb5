"""How sure a difference is: over the texts (intervals), and among random removals (controls)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from surgeon.tasks.task import SHARE, Floats, Scores, ratio_of_sums

LEAST_CONTROLS = 5
"""Controls below which a random removal too often lies beyond all of them."""

FEW_TEXTS = 10
"""Distinct texts below which a reader is warned."""

Interval: TypeAlias = tuple[float, float]
Groups: TypeAlias = npt.NDArray[np.int64]

ALPHA = 0.05
"""How often an interval may miss: of 95%."""
EARLY = 0.01
"""The error that stopping early may make, of ``ALPHA``; the rest is for the end.

So that both together are wrong in at most 5 of 100 cases, and the end keeps most of its power.
"""
_BEYOND = 0.04  # share of random removals beyond the range of the controls
_ENOUGH = 30  # texts that changed, from which a mean of mostly zeros is close to normal
_JACKKNIFE = 200  # groups of texts that are left out, one after another
_STAKES = np.array([0.999, *(0.5**power for power in range(1, 9))])
_NEAR = 1e-9
_UNSEEN = 8  # differences as large as the largest that are taken to be still to come


def paired_interval(
    patched: Scores, baseline: Scores, texts: Groups | None = None, alpha: float = ALPHA
) -> Interval:
    """Return the interval of patched − baseline for a number of texts fixed beforehand.

    Answers that flip (differences of −1, 0 and 1) have an exact interval, and other bounded
    differences that are mostly zero the one of ``_bet``, which holds at any number. Else the
    interval is studentized, on linearised differences or, for a score that no sum gives, on the
    jackknife's pseudo-values (Efron and Tibshirani 1993, chapter 11).

    Args:
        patched: the scores per example of one variant.
        baseline: those of the other, for the same examples.
        texts: the number of the text that each example is; equal texts count as one (None: all
            examples are different texts).
        alpha: how often it may miss: 0.05 for an interval of 95%.
    """
    if patched.statistic is not ratio_of_sums:
        return _studentized(_pseudo_values(patched, baseline, texts), alpha)
    difference, weight = _by_text(patched, baseline, texts)
    if patched.bounds == SHARE and np.isin(difference, (-1, 0, 1)).all() and (weight == 1).all():
        worse, better = int((difference > 0).sum()), int((difference < 0).sum())
        return _exact(worse, better, difference.size, alpha)
    if patched.bounds is not None and _is_sparse(difference):
        return _bet(difference, weight, patched.bounds, float(weight.max()), alpha)
    return _studentized(_linearised(difference, weight), alpha)


def confidence_sequence(
    patched: Scores,
    baseline: Scores,
    texts: Groups | None = None,
    alpha: float = ALPHA,
    heaviest: float | None = None,
    *,
    burn_in: int = 40,
    tightest: int = 100,
) -> Interval:
    """Return the interval of patched − baseline that may be looked at after every text.

    It holds at all numbers of texts at once, so that stopping when it settles a question is no
    cheating. The texts must come in random order. For bounded differences see ``_bet``. Of
    unbounded ones nothing is certain: theirs is the asymptotic sequence of Waudby-Smith, Arbour,
    Sinha, Kennedy and Ramdas 2024 ("Time-uniform central limit theory and asymptotic confidence
    sequences", theorem 2.2), unlimited until the damage is spread over ``burn_in`` texts (Kish's
    effective number), and with a deviation as if ``_UNSEEN`` more differences as large as the
    largest had come.

    Args:
        patched: the scores per example of one variant.
        baseline: those of the other, for the same examples.
        texts: as of ``paired_interval``.
        alpha: how often it may ever miss.
        heaviest: the largest weight of any text, of those still to come too (None: of these).
        burn_in: texts' worth of damage, before which an unbounded one is not looked at.
        tightest: the number of texts at which the interval of an unbounded one is shortest.
    """
    difference, weight = _by_text(patched, baseline, texts)
    if patched.bounds is not None:
        return _bet(difference, weight, patched.bounds, heaviest or float(weight.max()), alpha)
    count, absolute = difference.size, np.abs(difference)
    if absolute.sum() ** 2 < burn_in * (absolute**2).sum() or not absolute.any():
        return -math.inf, math.inf
    values = _linearised(difference, weight)
    ratio = float(values.mean())
    residuals = np.abs(values - ratio)
    squares = float((residuals**2).sum()) + _UNSEEN * float(residuals.max()) ** 2
    # Their equation 10; valid at any other number too.
    rho = (-2 * math.log(alpha) + math.log(1 - 2 * math.log(alpha))) / tightest
    inner = count * rho + 1
    scale = math.sqrt(2 * inner / (count**2 * rho) * math.log(math.sqrt(inner) / alpha))
    reach = math.sqrt(squares / (count + _UNSEEN)) * scale
    return ratio - reach, ratio + reach


def is_firm(patched: Scores, baseline: Scores, texts: Groups | None = None) -> bool:
    """Whether an interval of a fixed number of texts rests on enough of them.

    One of bounded differences always does. A studentized one does not where all texts but a few
    are as they were: those few may be all that is wrong, or nearly none of it.
    """
    if patched.bounds is not None:
        return True
    changes = np.abs(patched.total - baseline.total)
    return not _is_sparse(_summed(changes if changes.ndim == 1 else changes.sum(axis=1), texts))


def control_range(damages: Sequence[float]) -> Interval:
    """Return the range in which a random removal's damage lies, by what the controls did.

    It spans all of them and zero, which is no damage at all, and at least Tukey's fences
    (quartiles ± 1.5 interquartile ranges; Tukey 1977, "Exploratory Data Analysis"). One random
    removal in K + 1 is worse than all of K controls, more than 4 in 100 if K is below 24. The
    distance of the worst from the median is then stretched by 25 / (K + 1): beyond that lie some
    4 in 100 where the tail falls no slower than 1 / distance, as any law with a mean has it.
    """
    low, high = usual_range(damages)
    stretch = max(1.0, 1 / (_BEYOND * (len(damages) + 1)))
    centre = float(np.median(damages))
    return min(low, *damages), max(high, centre + stretch * (max(damages) - centre))


def usual_range(damages: Sequence[float]) -> Interval:
    """Return Tukey's fences around the controls, and zero.

    A control beyond them is no ordinary random removal: it may have hit an outlier itself.
    """
    first, third = np.quantile(np.asarray(damages, dtype=np.float64), [0.25, 0.75])
    reach = 1.5 * (third - first)
    return min(0.0, float(first - reach)), max(0.0, float(third + reach))


def certain_part(interval: Interval) -> float:
    """Return the end of an interval that is nearer to zero; 0 where it holds zero.

    What a control does for certain: what only the number of texts makes of it is left out.
    """
    low, high = interval
    return max(low, 0.0) + min(high, 0.0)


def chance_of_rank(damage: float, controls: Sequence[float]) -> float:
    """Return the chance that a random removal ranks as high among the controls.

    The permutation p-value (1 + controls at least as bad) / (1 + controls), Phipson and Smyth
    2010, "Permutation p-values should never be zero".
    """
    return (1 + sum(control >= damage for control in controls)) / (1 + len(controls))


def _exact(worse: int, better: int, count: int, alpha: float) -> Interval:
    """Return the interval of the difference of two kinds of flips among ``count`` answers.

    Each share has its exact interval (Clopper and Pearson 1934) at half of the error that is
    allowed. Without a flip it is ± 4.4 / count, by the rule of three.
    """
    from scipy.special import betaincinv

    def ends(flips: int) -> Interval:
        low = betaincinv(flips, count - flips + 1, alpha / 4) if flips else 0.0
        high = betaincinv(flips + 1, count - flips, 1 - alpha / 4) if flips < count else 1.0
        return float(low), float(high)

    (low, high), (less, more) = ends(worse), ends(better)
    return low - more, high - less


def _bet(
    difference: Floats, weight: Floats, bounds: Interval, heaviest: float, alpha: float
) -> Interval:
    """Return an interval of the ratio of the sums that holds at all numbers of texts at once.

    A gambler bets on each next text that the ratio is larger than θ. If it is θ, what they have is
    a nonnegative martingale, which ever becomes 2 / α times what it was in at most α / 2 of all
    cases (Ville 1939); another one bets that it is smaller. The interval is where neither did
    (Waudby-Smith and Ramdas 2023, "Estimating means of bounded random variables by betting",
    section 4). They have nine equal purses, each of which stakes a constant share of the most
    that it can lose.
    """
    from scipy.optimize import brentq

    counts: Floats = np.ones_like(difference)
    if np.ptp(weight) == 0:  # flips are of a few kinds
        difference, numbers = np.unique(difference, return_counts=True)
        counts = numbers.astype(np.float64)
        weight = np.full_like(difference, weight[0])
    ratio = float(counts @ difference) / float(counts @ weight)
    wanted = math.log(2 * _STAKES.size / alpha)

    def wealth(theta: float, end: float) -> float:
        """Return the logarithm of what the gamblers have, less what refutes θ."""
        gains = np.sign(theta - end) * (difference - theta * weight)
        logs = counts @ np.log1p(np.outer(gains / (abs(theta - end) * heaviest), _STAKES))
        return float(np.logaddexp.reduce(logs)) - wanted

    def limit(end: float) -> float:
        nearest = end + _NEAR * (ratio - end)
        if abs(ratio - end) < _NEAR or wealth(nearest, end) < 0:
            return end
        return float(brentq(wealth, nearest, ratio, args=(end,), xtol=_NEAR))

    return limit(bounds[0]), limit(bounds[1])


def _studentized(values: Floats, alpha: float) -> Interval:
    """Return an interval of the mean: Student's, widened to Hall's where they are skewed.

    Hall 1992, "On the removal of skewness by transformation in the presence of skewness",
    equation 2.3 of J. R. Stat. Soc. B 54: the cubic transformation of the studentized mean.
    """
    from scipy.special import stdtrit

    count, mean = values.size, float(values.mean())
    deviation = float(values.std(ddof=1)) if count > 1 else 0.0
    if deviation == 0:
        return mean, mean
    error = deviation / math.sqrt(count)
    skew = float(((values - mean) ** 3).mean() / values.std() ** 3) / math.sqrt(count)
    quantile = float(stdtrit(count - 1, 1 - alpha / 2))

    def untransformed(level: float) -> float:
        if abs(skew) < 1e-9:
            return level
        return float(3 / skew * (np.cbrt(1 + skew * (level - skew / 6)) - 1))

    return (
        mean - error * max(quantile, untransformed(quantile)),
        mean - error * min(-quantile, untransformed(-quantile)),
    )


def _linearised(difference: Floats, weight: Floats) -> Floats:
    """Return a number per text whose mean is the ratio of the sums, and which varies as it does."""
    ratio = difference.sum() / weight.sum()
    values: Floats = ratio + (difference - ratio * weight) / weight.mean()
    return values


def _pseudo_values(patched: Scores, baseline: Scores, texts: Groups | None) -> Floats:
    """Return the jackknife's pseudo-values of a difference, one for each group of texts."""
    numbers = np.arange(len(patched.total)) if texts is None else texts
    groups = numbers % _JACKKNIFE
    count = int(groups.max()) + 1
    whole = patched.value - baseline.value
    if count == 1:
        return np.array([whole])

    def without(scores: Scores, group: int) -> float:
        kept = groups != group
        return float(scores.statistic(scores.total[kept], scores.weight[kept]))

    changes = [without(patched, group) - without(baseline, group) for group in range(count)]
    return count * whole - (count - 1) * np.array(changes)


def _by_text(patched: Scores, baseline: Scores, texts: Groups | None) -> tuple[Floats, Floats]:
    """Return the difference and the weight of each different text."""
    return _summed(patched.total - baseline.total, texts), _summed(patched.weight, texts)


def _summed(values: Floats, texts: Groups | None) -> Floats:
    if texts is None:
        return values
    return np.bincount(texts, weights=values).astype(np.float64)


def _is_sparse(difference: Floats) -> bool:
    """Whether most texts are as they were, and few are not."""
    changed = np.count_nonzero(difference)
    return bool(changed < _ENOUGH and 2 * changed < difference.size)
