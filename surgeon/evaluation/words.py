"""A verdict in plain words."""

from __future__ import annotations

from surgeon.evaluation.result import Evaluation


def explain(evaluation: Evaluation) -> str:
    """Say in one sentence what the verdict rests on."""
    low, high = evaluation.ci95
    random_low, random_high = evaluation.control_range
    change = (
        f"the {evaluation.metric} changes by {evaluation.delta:+.4g} "
        f"(95% interval {low:+.4g} to {high:+.4g})"
    )
    span = f"{random_low:.4g} to {random_high:.4g}"
    return {
        "degraded": f"{change}, all of it beyond the {span} of random removals.",
        "intact": f"{change}; random removals do {span}.",
        "inconclusive": f"{change} and random removals do {span}; more --data or --controls may "
        "settle it.",
    }[evaluation.verdict]
