"""What a result says of its data, and what a reader should doubt it for."""

from __future__ import annotations

from collections.abc import Sequence

from surgeon.evaluation.artifact import Artifact
from surgeon.evaluation.evidence import FEW, LEAST, Evidence
from surgeon.evaluation.result import Dataset, Score
from surgeon.scoring.encoder import Prepared
from surgeon.scoring.examples import Example
from surgeon.scoring.statistics import usual_range
from surgeon.scoring.tasks.task import Data
from surgeon.text import fingerprint

_FEW_CONTROLS = 5
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
    baseline: Score,
    controls: Sequence[Score],
    low: float,
    evidence: Evidence,
    longest: int,
) -> tuple[str, ...]:
    """Return what to keep in mind about a result, a sentence each.

    ``low`` is where the damage's interval begins, and ``longest`` how many tokens a text may have.
    """
    found = [*_doubts(evidence), *_odd(baseline, controls, low)]
    if len(controls) < _FEW_CONTROLS:
        found.append(
            f"with {len(controls)} controls, 1 random removal in {len(controls) + 1} is worse than "
            "all of them; more --controls make a firmer verdict"
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


def _odd(baseline: Score, controls: Sequence[Score], low: float) -> list[str]:
    """Tell of a control far worse than the others, where that alone keeps a verdict open."""
    damages = [control.value - baseline.value for control in controls]
    usual = usual_range(damages)[1]
    worst, damage = max(zip(controls, damages, strict=True), key=lambda pair: pair[1])
    if not usual < low <= damage:
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
            f"{evidence.unskilled}: that nothing got worse says nothing; take other --data"
        )
    if distinct < _MOST_REPEATED * examples:
        found.append(
            f"{distinct} of {examples} texts are distinct, and the interval takes repeats for "
            "further evidence: it is narrower than it should be"
        )
    if distinct < FEW:
        enough = f"{LEAST} are the least for a verdict" if distinct < LEAST else "more are firmer"
        found.append(f"there are {distinct} distinct texts, and {enough}: give more --data")
    return found
