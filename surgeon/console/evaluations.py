"""What an evaluation found: scores, verdict, dose and blanks."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from statistics import fmean
from typing import TYPE_CHECKING

from rich.text import Text

from surgeon.console.printing import numbers, print_caution, print_json, print_table, print_text
from surgeon.harmless import from_to, plain

if TYPE_CHECKING:
    from surgeon.evaluation.result import Evaluation, Score


_VERDICT_STYLES = {"degraded": "bold red", "intact": "bold green", "inconclusive": "bold yellow"}


def show_evaluations(evaluations: Sequence[Evaluation], *, json: bool) -> None:
    """Show the scores side by side, and the verdict in words; as JSON, a list of several."""
    if json:
        documents = [evaluation.to_json() for evaluation in evaluations]
        print_json(documents[0] if len(documents) == 1 else {"evaluations": documents})
        return
    for evaluation in evaluations:
        _show(evaluation)


def _show(evaluation: Evaluation) -> None:
    from surgeon.evaluation.notes import explain, explain_cost, name_verdict

    quantized = evaluation.quantized
    _show_scores(evaluation)
    forms = {"": evaluation}
    if quantized is not None:
        forms = {"in float: ": evaluation, f"in {quantized.form}: ": quantized.evaluation}
    for form, one in forms.items():
        verdict = (name_verdict(one), _VERDICT_STYLES[one.verdict])
        print_text(Text.assemble(form, verdict, f": {plain(explain(one))}"))
    if quantized is not None:
        print_text(explain_cost(quantized))
    if evaluation.expected is not None:
        met = evaluation.verdict == evaluation.expected
        expected = "as its recipe expects" if met else f"its recipe expects {evaluation.expected}"
        print_text(f"{evaluation.verdict}: {expected}.")
    if evaluation.stopped_after is not None:
        unit = evaluation.dataset.unit
        print_text(f"Settled after {evaluation.stopped_after} {unit}; --all scores them all.")
    for warning in evaluation.warnings:
        print_caution(f"Note: {warning}")
    if evaluation.labels:
        names = list(evaluation.labels[0].baseline)
        print_table(
            ["label", ">support", *(f">{name}" for name in names)],
            [
                (
                    report.label,
                    str(report.support),
                    *(f"{report.baseline[n]:.4g} → {report.patched[n]:.4g}" for n in names),
                )
                for report in evaluation.labels
            ],
            title="label by label: baseline → patched",
        )
    if len(evaluation.intervals) > 1:
        print_table(
            ["score", ">change", ">95% interval"],
            [(name, *_change(c.delta, c.ci95)) for name, c in evaluation.intervals.items()],
            title=f"change of every score; the {evaluation.metric} decides",
        )
    if evaluation.dose:
        print_table(
            ["removed", f">{evaluation.metric}", ">change", ">95% interval"],
            [
                (numbers(d.dims), f"{d.value:.4g}", *_change(d.delta, d.ci95))
                for d in evaluation.dose
            ],
            title=f"dose: {evaluation.metric} as dims are removed one by one",
        )
    if evaluation.fill_ins:
        print_table(
            ["text", "expected", "baseline", "patched"],
            [(b.text, b.expected, b.baseline, b.patched) for b in evaluation.fill_ins],
            title="blanks filled in",
            lines=True,
        )


def _change(delta: float, ci95: tuple[float, float]) -> tuple[str, str]:
    return f"{delta:+.4g}", from_to(ci95, "+.4g")


def _show_scores(evaluation: Evaluation) -> None:
    """Show baseline and patched model, and the controls: their mean, and their range."""
    data, quantized = evaluation.dataset, evaluation.quantized
    by_damage = sorted(evaluation.controls, key=attrgetter("value"))
    places = [evaluation.controls.index(one) for one in (by_damage[0], by_damage[-1])]
    columns, rows = evaluation.columns, _rows(evaluation, places)
    if quantized is not None:
        # Beside each other the two forms have room for what decides.
        decides = 2 + columns.index(evaluation.metric)
        cost, others = quantized.cost, _rows(quantized.evaluation, places)
        costs = [cost.baseline.delta, cost.patched.delta, fmean(cost.controls)]
        costs += [cost.controls[place] for place in places]
        rows = [
            [*row[:2], row[decides], other[decides], f"{more:+.4g}"]
            for row, other, more in zip(rows, others, costs, strict=False)
        ]
        columns = [evaluation.metric, f"in {quantized.form}", f"cost of {quantized.form}"]
    print_table(
        ["variant", "dims", *(f">{name}" for name in columns)],
        rows,
        title=f"{evaluation.model}: {evaluation.title}",
        caption=f"{evaluation.metric}: {evaluation.unit}; {data.examples} {data.unit}, "
        f"{data.tokens} tokens of {data.name}; {', '.join(evaluation.providers)}",
    )


def _rows(evaluation: Evaluation, places: Sequence[int]) -> list[list[str]]:
    """Return the rows of the table; ``places`` are those of the least and the worst control."""
    from surgeon.evaluation.result import Score

    controls = evaluation.controls

    def row(label: str, score: Score) -> list[str]:
        return [label, numbers(score.dims), *evaluation.row(score)]

    rows = [row("baseline", evaluation.baseline), row("patched", evaluation.patched)]
    if len(controls) == 1:
        return [*rows, row("control", controls[0])]
    names = set.intersection(*(set(control.others) for control in controls))
    means = {name: fmean(control.others[name] for control in controls) for name in names}
    mean = Score((), fmean(c.value for c in controls), means)
    rows.append(row(f"mean of {len(controls)} controls", mean))
    least, most = (controls[place] for place in places)
    return [*rows, row("least of them", least), row("most of them", most)]
