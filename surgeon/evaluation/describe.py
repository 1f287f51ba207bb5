"""What a result says of its data, and what a reader should doubt it for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from surgeon.evaluation.artifact import Artifact
from surgeon.evaluation.evidence import FEW, LEAST, Evidence
from surgeon.evaluation.result import Dataset, Score
from surgeon.evaluation.verdict import Finding
from surgeon.scoring.encoder import Prepared
from surgeon.scoring.examples import Example
from surgeon.scoring.statistics import LEAST_CONTROLS, usual_range
from surgeon.scoring.tasks import Settings, Task
from surgeon.scoring.tasks.classification import guesses
from surgeon.scoring.tasks.task import Data, Floats
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
