"""A verdict in plain words."""

from __future__ import annotations

from surgeon.evaluation.result import Evaluation


def explain(evaluation: Evaluation) -> str:
    """Say in one sentence what the verdict rests on."""
    low, high = evaluation.ci95
    change = (
        f"the {evaluation.metric} changes by {evaluation.delta:+.4g} "
        f"(95% interval {low:+.4g} to {high:+.4g})"
    )
    if evaluation.verdict == "degraded":
        least = "" if evaluation.control_range[1] >= evaluation.margin else _and_margin(evaluation)
        span = _span(evaluation.control_range)
        return f"{change}, all of it beyond the {span} of random removals{least}."
    if evaluation.verdict == "intact":
        usual = evaluation.usual_range
        if not usual[0] <= low <= high <= usual[1]:
            return f"{change}, all of it within the margin of ±{evaluation.margin:.4g}."
        return f"{change}, all of it within the {_span(usual)} that most random removals do."
    span = _span(evaluation.control_range)
    return f"{change} and random removals do {span}; {_why_open(evaluation)}."


def _and_margin(evaluation: Evaluation) -> str:
    return f" and the margin of {evaluation.margin:.4g}"


def _span(ends: tuple[float, float]) -> str:
    return f"{ends[0]:.4g} to {ends[1]:.4g}"


def _why_open(evaluation: Evaluation) -> str:
    """Say what a verdict that is none lacks."""
    if evaluation.ci95[1] < min(evaluation.control_range[0], -evaluation.margin):
        return "the score got better, beyond random removals, which is neither damage nor none"
    if evaluation.until_certain and evaluation.needed is None:
        return "an interval that is valid at any number of texts leaves it open"
    if evaluation.needed is not None:
        return (
            f"with a margin of {evaluation.margin:.4g} that leaves it open, and some "
            f"{evaluation.needed:,} texts like these would settle it"
        )
    if evaluation.warnings:
        return "the notes say why that settles nothing"
    return "the change lies where random removals end: more --controls may settle it"
