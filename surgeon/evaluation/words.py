"""A verdict in plain words."""

from __future__ import annotations

from surgeon.evaluation.evidence import LEAST, Evidence
from surgeon.evaluation.result import Evaluation
from surgeon.evaluation.verdict import judge
from surgeon.scoring.statistics import usual_range


def explain(evaluation: Evaluation) -> str:
    """Say in one sentence what the verdict rests on."""
    low, high = evaluation.ci95
    change = (
        f"the {evaluation.metric} changes by {evaluation.delta:+.4g} "
        f"(95% interval {low:+.4g} to {high:+.4g})"
    )
    if evaluation.verdict == "degraded":
        return (
            f"{change}, all of it beyond the {_span(evaluation.control_range)} of random removals."
        )
    if evaluation.verdict == "intact":
        return f"{change}; random removals usually do {_span(usual_range(evaluation.damages))}."
    span = _span(evaluation.control_range)
    return f"{change} and random removals do {span}; {_why_open(evaluation)}."


def _span(ends: tuple[float, float]) -> str:
    return f"{ends[0]:.4g} to {ends[1]:.4g}"


def _why_open(evaluation: Evaluation) -> str:
    """Say what a verdict that is none lacks."""
    if evaluation.ci95[1] < evaluation.control_range[0]:
        return "the score got better, beyond random removals, which is neither damage nor none"
    sound = Evidence(LEAST, LEAST)
    if judge(evaluation.delta, evaluation.ci95, evaluation.damages, sound) != "inconclusive":
        return "the notes say why that settles nothing"
    return "more --data or --controls may settle it"
