"""From scores to a verdict: one rule, stated once."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from surgeon.evaluation.workload import Workload
from surgeon.harmless import from_to
from surgeon.tasks.examples import Example
from surgeon.tasks.statistics import (
    ALPHA,
    LEAST_CONTROLS,
    Interval,
    certain_part,
    confidence_sequence,
    control_range,
    is_firm,
    paired_interval,
    usual_range,
)
from surgeon.tasks.task import MARGIN, Floats, Scores, Settings, Task

Verdict: TypeAlias = Literal["degraded", "intact", "inconclusive"]

_OUT_OF_REACH = 1e7  # texts
Measure: TypeAlias = Callable[[Scores, Scores], Interval]

LEAST = 6
"""Distinct texts below which there is no verdict.

Five differences all have the same sign by chance in 2 of 2⁵ cases, more than 5 in 100, so that
they give no interval of 95%.
"""

_ANOTHER_SCALE = 0.5  # Pearson's correlation from which errors are a matter of the scale


@dataclass(frozen=True)
class Effect:
    """What a variant does: how much worse than the baseline it scores, with the 95% interval."""

    damage: float
    interval: Interval


@dataclass(frozen=True)
class Finding:
    """What the scores show.

    ``control_range`` is where a random removal's damage lies, ``usual_range`` where most do for
    certain. ``margin`` is the smallest damage that matters. ``needed`` is the number of texts that
    would settle an open verdict if the damage stayed what it is, None where no number would.
    """

    patched: Effect
    damages: tuple[float, ...]
    control_range: Interval
    usual_range: Interval
    margin: float
    evidence: Evidence
    verdict: Verdict
    needed: int | None


def find(
    work: Workload,
    kept: Floats,
    *,
    margin: float | None = None,
    unchanged: bool,
    early: bool = False,
    alpha: float = ALPHA,
) -> Finding:
    """Compare the baseline with the patched model and the controls, and judge.

    Args:
        work: the task, whose ``metric`` decides, and the examples.
        kept: what is kept of the first examples in the baseline, the patched model and the
            controls, (variants, examples, kept).
        margin: the smallest damage that matters (None: the task's).
        unchanged: whether the operation changed no value.
        early: whether this is one look of several at a growing number of texts, not all that
            there are.
        alpha: how often the interval may miss.
    """
    task, settings, examples = work.task, work.settings, work.examples[: kept.shape[1]]
    texts = work.texts[: len(examples)]
    measure: Measure = functools.partial(paired_interval, texts=texts, alpha=alpha)
    scores = [task.scores(one, settings)[task.metric] for one in kept]
    if early:
        heaviest = heaviest_text(work, scores[0].weight)
        measure = functools.partial(
            confidence_sequence, texts=texts, alpha=alpha, heaviest=heaviest
        )
    patched, *controls = (effect_of(one, scores[0], measure) for one in scores[1:])
    evidence = Evidence(
        examples=len(examples),
        distinct=int(texts.max()) + 1,
        unskilled=why_unskilled(task, examples, kept[0], settings, measure),
        firm=early or is_firm(scores[1], scores[0], texts),
        unchanged=unchanged,
    )
    if margin is None:
        margin = MARGIN * _scale(task, examples, kept[0], settings)
    return weigh(patched, controls, margin, evidence)


def effect_of(scored: Scores, baseline: Scores, measure: Measure) -> Effect:
    """Return what a variant does to the score of the baseline."""
    return Effect(scored.value - baseline.value, measure(scored, baseline))


def _scale(task: Task, examples: Sequence[Example], baseline: Floats, settings: Settings) -> float:
    """Return what the smallest damage that matters is a share of."""
    if task.metric != "squared error":
        return 1.0
    constant = next(iter(task.naive(examples, baseline, settings).values()))
    return task.scores(constant, settings)[task.metric].value


def weigh(
    patched: Effect, controls: Sequence[Effect], margin: float, evidence: Evidence
) -> Finding:
    """Hold what was patched against what random removals do."""
    damages = tuple(control.damage for control in controls)
    widest = control_range(damages)
    usual = usual_range([certain_part(control.interval) for control in controls])
    verdict = judge(patched.interval, widest[1], usual, margin, evidence, len(damages))
    needed = None
    if verdict == "inconclusive":
        needed = _needed(patched, widest[1], usual, margin, evidence.distinct)
    return Finding(patched, damages, widest, usual, margin, evidence, verdict, needed)


def judge(
    interval: Interval,
    worst: float,
    usual: Interval,
    margin: float,
    evidence: Evidence,
    controls: int,
) -> Verdict:
    """Judge a damage by its interval, by what random removals do, and by what matters.

    ``degraded``: the whole interval lies beyond what random removals do, and beyond the margin.
    ``intact``: the whole interval lies within what most random removals do for certain, within the
    margin on either side of zero, or within both together; or the operation changed no value.
    ``inconclusive``: anything else, a score that became better among it. So is any result on
    fewer than ``LEAST`` distinct texts, of a baseline without skill, and by an interval
    that rests on a few texts that changed; and fewer than ``statistics.LEAST_CONTROLS`` controls
    show no damage.

    Args:
        interval: the 95% interval of the damage, in the metric's unit.
        worst: the end of the controls' range (``statistics.control_range``).
        usual: the range of what they do for certain (``usual_range`` of ``certain_part``).
        margin: the smallest damage that matters.
        evidence: what the examples and the baseline allow to conclude.
        controls: how many random removals there are.
    """
    low, high = interval
    if evidence.distinct < LEAST or evidence.unskilled is not None:
        return "inconclusive"
    if evidence.unchanged:
        return "intact"
    if not evidence.firm or low == high:
        return "inconclusive"
    if low > max(worst, margin) and controls >= LEAST_CONTROLS:
        return "degraded"
    within = min(usual[0], -margin) <= low and high <= max(usual[1], margin)
    return "intact" if within else "inconclusive"


def _needed(
    patched: Effect, worst: float, usual: Interval, margin: float, texts: int
) -> int | None:
    """Return how many texts would make the interval short enough, to two digits."""
    damage, (low, high) = patched.damage, patched.interval
    beyond = damage - max(worst, margin)
    within = min(max(usual[1], margin) - damage, damage - min(usual[0], -margin))
    room, reach = (
        (beyond, damage - low) if beyond > 0 else (within, max(high - damage, damage - low))
    )
    if room <= 0 or not room < reach < math.inf:
        return None
    # An interval shortens with the root of their number; one of no change at all, with the number.
    wanted = texts * (reach / room) ** (1 if damage == 0 else 2)
    if wanted > _OUT_OF_REACH:
        return None
    step = 10 ** max(0, math.ceil(math.log10(wanted)) - 2)
    return int(step * math.ceil(wanted / step))


@dataclass(frozen=True)
class Evidence:
    """What a verdict can rest on.

    ``distinct`` of the ``examples`` are different texts. ``unskilled`` says why the baseline does
    nothing that a removal could undo (None: it does something). ``firm`` is whether enough texts
    changed for the interval to hold, and ``unchanged`` whether the operation changed no value.
    """

    examples: int
    distinct: int
    unskilled: str | None = None
    firm: bool = True
    unchanged: bool = False


def heaviest_text(work: Workload, weights: Floats) -> float:
    """Return the most that any text weighs, by which bounded scores are bet on.

    An example weighs what is scored of it, or 1 whatever that is, as a minimal pair does: it is as
    in the ``weights`` of the first.
    """
    scored = np.array([max(1, example.labels.size) for example in work.examples])
    alike = np.array_equal(weights, scored[: weights.size])
    return float(np.bincount(work.texts, weights=scored if alike else None).max())


def why_unskilled(
    task: Task, examples: Sequence[Example], observed: Floats, settings: Settings, measure: Measure
) -> str | None:
    """Say why the baseline is not better than predictors without skill; None: it is.

    Args:
        task: what is scored.
        examples: the examples.
        observed: what was observed of the baseline, (examples, kept).
        settings: those of the task.
        measure: gives the interval of a difference.
    """
    predictors = task.naive(examples, observed, settings)
    if not predictors:
        return None
    if "classification" in task.heads and np.ptp(observed[:, 0]) == 0:
        return "all examples have the same label"
    own = task.scores(observed, settings)[task.metric]
    for name, naive in predictors.items():
        other = task.scores(naive, settings)[task.metric]
        if measure(other, own)[0] > 0:
            continue
        found = (
            f"the baseline's {task.metric} of {own.value:.4g} is not shown to be better than the "
            f"{other.value:.4g} of {name}"
        )
        return f"{found}{_another_scale(task, observed)}"
    return None


def _another_scale(task: Task, observed: Floats) -> str:
    """Say so if the baseline ranks the examples well, and its numbers are not those of the data."""
    if task.metric != "squared error":
        return ""
    expected, predicted = observed.T
    if not np.ptp(predicted) or np.corrcoef(expected, predicted)[0, 1] < _ANOTHER_SCALE:
        return ""
    spans = (from_to((values.min(), values.max())) for values in (expected, predicted))
    return (
        " (the labels run from {} and the predictions from {}: bring the labels to the model's "
        "scale, or let the metric Pearson decide)".format(*spans)
    )
