"""What a result says of its data, and what a reader should doubt it for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from surgeon.evaluation.artifact import Artifact
from surgeon.evaluation.result import Dataset, Evaluation, Score
from surgeon.evaluation.verdict import (
    FEW,
    LEAST,
    Evidence,
    Finding,
)
from surgeon.onnx.facts import OnnxFacts
from surgeon.tasks.classification import guesses
from surgeon.tasks.examples import Example, Prepared
from surgeon.tasks.registry import Settings, Task
from surgeon.tasks.statistics import LEAST_CONTROLS, usual_range
from surgeon.tasks.task import Data, Floats
from surgeon.text import fingerprint

_MOST_REPEATED = 0.9  # share of distinct examples; large data sets have a few repeats


def describe_data(data: Data, prepared: Prepared, examples: Sequence[Example]) -> Dataset:
    """Return what the result says of the data."""
    return Dataset(
        name=data.name,
        sha256=data.sha256,
        examples=len(examples),
        tokens=sum(example.tokens for example in examples),
        scored_tokens=sum(example.scored for example in examples),
        skipped=prepared.given - len(prepared.examples),
        truncated=prepared.truncated,
        unknown=prepared.unknown,
        unit=prepared.unit,
    )


def warnings_of(
    artifact: Artifact,
    data: Data,
    dataset: Dataset,
    controls: Sequence[Score],
    finding: Finding,
    longest: int,
) -> tuple[str, ...]:
    """Return what to keep in mind about a result, a sentence each.

    ``longest`` is how many tokens a text may have.
    """
    found = [*_doubts(finding.evidence), *_odd(controls, finding)]
    if len(controls) < LEAST_CONTROLS:
        found.append(
            f"with {len(controls)} controls, 1 random removal in {len(controls) + 1} is worse than "
            f"all of them, so that no verdict is degraded; give --controls {LEAST_CONTROLS} or more"
        )
    if artifact.record.parameters_changed == 0:
        found.append("the operation changed no value: the patched model is the baseline")
    ranked_on = artifact.record.ranked_on
    seen = set(ranked_on.lines) if ranked_on else set()
    if shared := sum(fingerprint(line) in seen for line in data.lines):
        found.append(
            f"{shared} of {len(data.lines)} texts also chose the dimensions: judged on what "
            "chose it, a removal looks worse than it is; take other --data"
        )
    if dataset.truncated:
        texts = "text was" if dataset.truncated == 1 else "texts were"
        found.append(f"{dataset.truncated} {texts} cut to {longest} tokens")
    return tuple(found)


def collapse_of(
    task: Task, baseline: Floats, patched: Floats, settings: Settings
) -> tuple[str, ...]:
    """Tell of a patched model that gives all examples one answer, which the baseline does not."""
    if task.head != "classification":
        return ()
    if task.numeric:
        constant = np.ptp(patched[:, 1]) == 0 < np.ptp(baseline[:, 1])
        return ("the patched model predicts one number for all examples",) if constant else ()
    before, after = guesses(baseline), guesses(patched)
    if np.ptp(after) > 0 or np.ptp(before) == 0:
        return ()
    return (f"the patched model gives all examples the label {settings.labels[after[0]]}",)


def _odd(controls: Sequence[Score], finding: Finding) -> list[str]:
    """Tell of a control far worse than the others, where that alone keeps a verdict open."""
    usual = max(usual_range(finding.damages)[1], finding.margin)
    pairs = zip(controls, finding.damages, strict=True)
    worst, damage = max(pairs, key=lambda pair: pair[1])
    if not usual < finding.patched.interval[0] <= damage:
        return []
    dims = ", ".join(map(str, worst.dims))
    told = (
        f"the control at {dims} does {damage:.4g}, where random removals usually reach {usual:.4g} "
        "at most: it may have hit an outlier, which scan --method ablation would tell"
    )
    return [told]


def _doubts(evidence: Evidence) -> list[str]:
    """Say what the examples and the baseline do not allow to conclude."""
    found = []
    examples, distinct = evidence.examples, evidence.distinct
    if evidence.unskilled is not None:
        found.append(
            f"{evidence.unskilled}: there is no skill to lose, and so no verdict; take other or "
            "more --data"
        )
    if not evidence.firm:
        found.append(
            "too few texts changed for an interval of this metric: there is no verdict; give more "
            "--data"
        )
    if distinct < _MOST_REPEATED * examples:
        found.append(
            f"{distinct} of {examples} texts are distinct: equal ones count as one in the interval"
        )
    if distinct < FEW:
        enough = f"{LEAST} are the least for a verdict" if distinct < LEAST else "more are firmer"
        found.append(f"there are {distinct} distinct texts, and {enough}: give more --data")
    return found


NOTHING_TO_RESUME = (
    "--resume: nothing was kept of an evaluation with these settings, so that it began anew"
)
MEAN_POOLED = (
    "no modules.json of sentence-transformers is in the artifact, so a sentence is embedded by the "
    "mean of its tokens"
)
NO_BLANKS = "no block has a length to be read with a blank filled in (8 to 32 tokens)"


def notes_of(facts: OnnxFacts, dataset: Dataset) -> tuple[str, ...]:
    """Return what a reader would otherwise not see was left out."""
    found = list(facts.not_applied)
    if facts.head_left_out:
        found.append(
            f"config.json declares {facts.head_left_out}, whose head no task scores: what is "
            "measured is the model below it"
        )
    if facts.head_missing:
        found.append(
            f"config.json declares {facts.head_missing}, and the model has no such head: what is "
            "measured is the model below it"
        )
    if facts.one_at_a_time:
        found.append(
            "the graph takes one text alone, or gives it another output in a batch (by quantizing "
            "a batch as a whole, or taking padding for text), so that each was run alone"
        )
    if dataset.skipped:
        found.append(
            f"{dataset.skipped} of {dataset.skipped + dataset.examples} texts or rows were left "
            "out: they have no label (-1 is none), or no token to score"
        )
    return tuple(found)


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
