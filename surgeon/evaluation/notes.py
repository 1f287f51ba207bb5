"""What a reader of a result should doubt it for, and what its verdict rests on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from surgeon.evaluation.artifact import Artifact
from surgeon.evaluation.result import Change, Evaluation, Quantized, Score
from surgeon.evaluation.verdict import LEAST, Finding
from surgeon.evaluation.workload import Workload
from surgeon.harmless import from_to
from surgeon.tasks.classification import guesses
from surgeon.tasks.statistics import FEW_TEXTS, LEAST_CONTROLS, usual_range
from surgeon.tasks.task import INVERTED, Floats, Settings, Task
from surgeon.text import fingerprint

_NAMED = 3  # controls that a sentence names
_MOST_REPEATED = 0.9  # share of distinct examples; large data sets have a few repeats

NOTHING_TO_RESUME = (
    "nothing was kept of an evaluation with these settings to resume, so that it began anew"
)
NO_BLANKS = "no block has a length to be read with a blank filled in (8 to 32 tokens)"
_MEAN_POOLED = (
    "no modules.json of sentence-transformers is in the artifact, so a sentence is embedded by the "
    "mean of its tokens"
)


def notes_of(
    artifact: Artifact, work: Workload, kept: Floats, controls: Sequence[Score], finding: Finding
) -> tuple[str, ...]:
    """Return what to keep in mind about a result, a sentence each."""
    return (
        *doubts_about(finding, controls),
        *_about_texts(artifact, work),
        *collapse_of(work.task, kept[0], kept[1], work.settings),
        *_about_graph(artifact, work),
        *work.prepared.notes,
    )


def doubts_about(finding: Finding, controls: Sequence[Score]) -> Iterator[str]:
    """Say what the examples, the baseline and the controls do not allow to conclude."""
    evidence = finding.evidence
    examples, distinct = evidence.examples, evidence.distinct
    if evidence.unskilled is not None:
        yield (
            f"{evidence.unskilled}, so no damage can be measured and there is no verdict; give "
            "other or more data"
        )
    if not evidence.firm:
        yield (
            "too few texts changed for an interval of this metric: there is no verdict; give more "
            "data"
        )
    if distinct < _MOST_REPEATED * examples:
        yield (
            f"{distinct} of {examples} texts are distinct: equal ones count as one in the interval"
        )
    if distinct < FEW_TEXTS:
        enough = f"{LEAST} are the least for a verdict" if distinct < LEAST else "more are firmer"
        yield f"there are {distinct} distinct texts, and {enough}: give more data"
    usual = max(usual_range(finding.damages)[1], finding.margin)
    pairs = zip(controls, finding.damages, strict=True)
    worst, damage = max(pairs, key=lambda pair: pair[1])
    if usual < finding.patched.interval[0] <= damage:  # that control alone keeps the verdict open
        dims = ", ".join(map(str, worst.dims))
        yield (
            f"the control at {dims} does {damage:.4g}, where random removals usually reach "
            f"{usual:.4g} at most: it may have hit an outlier; the method ablation measures that"
        )
    if len(controls) < LEAST_CONTROLS:
        yield (
            f"with {len(controls)} controls, 1 random removal in {len(controls) + 1} is worse than "
            f"all of them, so that no verdict is degraded; give {LEAST_CONTROLS} or more"
        )
    if evidence.unchanged:
        yield "the operation changed no value: the patched model is the baseline"


def _about_texts(artifact: Artifact, work: Workload) -> Iterator[str]:
    ranked_on = artifact.record.ranked_on
    seen = set(ranked_on.lines) if ranked_on else set()
    if shared := sum(fingerprint(line) in seen for line in work.data.lines):
        yield (
            f"{shared} of the texts in {work.data.name} also chose the dimensions: judged on what "
            "chose it, a removal looks worse than it is; take other data"
        )
    if cut := work.prepared.truncated:
        yield f"{cut} {'text was' if cut == 1 else 'texts were'} cut to {work.longest} tokens"


def collapse_of(
    task: Task, baseline: Floats, patched: Floats, settings: Settings
) -> tuple[str, ...]:
    """Name the one answer that a patched model gives to all examples, and its baseline does not."""
    if "classification" not in task.heads:
        return ()
    if task.numeric:
        constant = np.ptp(patched[:, 1]) == 0 < np.ptp(baseline[:, 1])
        return ("the patched model predicts one number for all examples",) if constant else ()
    before, after = guesses(baseline), guesses(patched)
    if np.ptp(after) > 0 or np.ptp(before) == 0:
        return ()
    return (f"the patched model gives all examples the label {settings.labels[after[0]]}",)


def _about_graph(artifact: Artifact, work: Workload) -> Iterator[str]:
    """Say what had no part in the scores, which a reader would otherwise not see."""
    facts = artifact.facts
    yield from facts.not_applied
    if facts.head_left_out:
        yield (
            f"config.json declares {facts.head_left_out}, whose head no task scores: what is "
            "measured is the model below it"
        )
    if facts.head_missing:
        yield (
            f"config.json declares {facts.head_missing}, and the model has no such head: what is "
            "measured is the model below it"
        )
    if facts.one_at_a_time:
        yield (
            "the graph takes one text alone, or gives it another output in a batch (by quantizing "
            "a batch as a whole, or taking padding for text), so that each was run alone"
        )
    given, found = work.prepared.given, len(work.prepared.examples)
    if given > found:
        yield (
            f"{given - found} of {given} texts or rows were left "
            "out: they have no label (-1 is none), or no token to score"
        )
    if work.task.name == "sts" and work.settings.pooling is None:
        yield _MEAN_POOLED


def name_verdict(evaluation: Evaluation) -> str:
    """Return the verdict as people should read it: intact is no proof that nothing happened."""
    if evaluation.verdict != "intact":
        return evaluation.verdict
    small = evaluation.ci95[1] <= evaluation.margin and not _is_usual(evaluation)
    less = "by less than the margin that matters" if small else "no worse than random removals"
    return f"intact, {less}"


def explain(evaluation: Evaluation) -> str:
    """Say in one sentence what the verdict rests on."""
    low, high = evaluation.ci95
    interval = from_to(evaluation.ci95, "+.4g")
    change = f"the {evaluation.metric} changes by {evaluation.delta:+.4g} (95% interval {interval})"
    if evaluation.metric.startswith(INVERTED):
        change = f"{before_and_after(evaluation)}; {change}"
    if evaluation.verdict == "degraded":
        span, margin = from_to(evaluation.control_range), evaluation.margin
        least = f" and the margin of {margin:.4g}" if margin > evaluation.control_range[1] else ""
        return f"{change}, all of it beyond the {span} of random removals{least}."
    if evaluation.verdict == "intact":
        usual, margin, or_margin = evaluation.usual_range, evaluation.margin, ""
        if not _is_usual(evaluation):
            if -margin <= low and high <= margin:
                return f"{change}, all of it within the margin of ±{margin:.4g}."
            usual = min(usual[0], -margin), max(usual[1], margin)
            or_margin = " or the margin allows"
        within = f"the {from_to(usual)} that most random removals do{or_margin}"
        return f"{change}, all of it within {within}{_left_out(evaluation)}."
    span = from_to(evaluation.control_range)
    return f"{change} and random removals do {span}; {_why_open(evaluation)}."


def explain_cost(quantized: Quantized) -> str:
    """Say in one sentence what a form costs, and whether it costs the patched model more."""
    cost, metric = quantized.cost, quantized.evaluation.metric
    apart = [one - cost.baseline.delta for one in cost.controls]
    more = cost.patched.delta - cost.baseline.delta
    interval = f" ({_ends(cost.difference)})" if cost.difference else ""
    return (
        f"{quantized.form} costs the baseline {_change(cost.baseline)} of {metric} and the patched "
        f"model {_change(cost.patched)}, a difference of {more:+.4g}{interval}; random removals "
        f"make one of {from_to((min(apart), max(apart)), '+.4g')}."
    )


def _change(change: Change) -> str:
    return f"{change.delta:+.4g} ({_ends(change)})"


def _ends(change: Change) -> str:
    return f"95% interval {from_to(change.ci95, '+.4g')}"


def _is_usual(evaluation: Evaluation) -> bool:
    """Whether the whole interval lies within what most random removals do."""
    (low, high), usual = evaluation.ci95, evaluation.usual_range
    return usual[0] <= low <= high <= usual[1]


def before_and_after(evaluation: Evaluation) -> str:
    """Say what baseline and patched model score, in the metric's own direction."""
    before, after = (_own(evaluation, s.value) for s in (evaluation.baseline, evaluation.patched))
    return f"{evaluation.metric.removeprefix(INVERTED)} {before:.4g} → {after:.4g}"


def _own(evaluation: Evaluation, score: float) -> float:
    """Return a score in the direction of the metric that it is 1 less, if it is one."""
    return 1 - score if evaluation.metric.startswith(INVERTED) else score


def tabulate(evaluations: Iterable[Evaluation]) -> tuple[list[str], list[list[str]]]:
    """Return the heads and the rows of a table of evaluations, with scores in their own direction.

    A change and its interval are of the patched model, in the direction of the score.
    """
    heads = ["task", "data", "n", "verdict", "score", "change (95% interval)", "random removals"]
    heads += ["controls", "seed", "masking"]
    return heads, [_row(evaluation) for evaluation in evaluations]


def _row(evaluation: Evaluation) -> list[str]:
    data = evaluation.dataset
    sign = -1 if evaluation.metric.startswith(INVERTED) else 1
    interval = sorted(sign * end + 0.0 for end in evaluation.ci95)  # no −0
    random = sorted(_own(evaluation, control.value) for control in evaluation.controls)
    masked, how = evaluation.mask_rate, evaluation.options.get("masking", "")
    return [
        evaluation.task,
        f"{data.name}, sha256 {data.sha256[:8]}…",
        f"{data.examples:,} {data.unit}" + (", early stop" if evaluation.stopped_after else ""),
        name_verdict(evaluation),
        before_and_after(evaluation),
        f"{sign * evaluation.delta:+.4g} ({from_to(interval, '+.4g')})",
        from_to((random[0], random[-1])),
        str(len(random)),
        str(evaluation.seed),
        "" if masked is None else f"{masked:.0%} {how}".strip(),
    ]


def _left_out(evaluation: Evaluation) -> str:
    """Name the controls beyond the usual range, the worst first: they may have hit an outlier."""
    pairs = zip(evaluation.damages, evaluation.controls, strict=True)
    beyond = [
        f"control {', '.join(map(str, control.dims))} ({damage:+.4g})"
        for damage, control in sorted(pairs, key=lambda pair: -pair[0])
        if damage > evaluation.usual_range[1]
    ]
    more = f" and {len(beyond) - _NAMED} more" if len(beyond) > _NAMED else ""
    return f"; left out of that range: {', '.join(beyond[:_NAMED])}{more}" if beyond else ""


def _why_open(evaluation: Evaluation) -> str:
    """Say what an open verdict lacks."""
    if evaluation.ci95[1] < min(evaluation.control_range[0], -evaluation.margin):
        return "the score got better, beyond random removals, which is neither damage nor none"
    if evaluation.needed is not None:
        return (
            f"with a margin of {evaluation.margin:.4g} that leaves it open, and some "
            f"{evaluation.needed:,} texts like these would settle it"
        )
    if evaluation.warnings:
        return "the notes say why that settles nothing"
    return "the change lies where random removals end: more controls may settle it"
