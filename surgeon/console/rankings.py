"""Rankings for people: which dimensions, how sure that is, and where the detectors agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from surgeon.console.printing import (
    numbers,
    out,
    print_json,
    print_text,
)

if TYPE_CHECKING:
    from surgeon.edit.plan import Plan
    from surgeon.ranking import (
        Agreement,
        Dimension,
        Ranking,
    )


_OUTLIERS_SHOWN = 6


def show_ranking(ranking: Ranking, top: int, *, json: bool, settle: str | None = None) -> None:
    """Show the strongest dimensions, and which of them are outliers.

    ``settle`` is the command that measures where the evidence is weak (None: there is none).
    """
    if json:
        print_json(ranking.to_json())
        return
    console = out()
    shown = max(top, len(ranking.outliers))
    console.print(_table(ranking, shown))
    _explain_flags(ranking.dimensions[:shown])
    if ranking.outliers:
        console.print(f"Outliers: {numbers(ranking.outliers, limit=None)}", soft_wrap=True)
    elif not ranking.weak:
        console.print("No dimension meets the criterion.", soft_wrap=True)
    if ranking.weak:
        _show_weak(ranking.weak, settle and f"{settle} measures what removing each does")
    show_warnings(ranking.warnings)


def show_weakness(plan: Plan, *, json: bool, settle: str | None = None) -> None:
    """Say so where the evidence that chose an edit's dimensions is weak.

    ``settle`` is the command that measures them (None: there is none).
    """
    if json or plan.ranking is None:
        return
    if plan.ranking.weak:
        _show_weak(plan.ranking.weak, settle and f"{settle} measures them first")
    show_warnings(plan.ranking.warnings)


def show_agreement(agreement: Agreement, *, json: bool) -> None:
    """Show the detectors side by side."""
    if json:
        print_json(agreement.to_json())
        return
    from surgeon.ranking import find_detector

    count, measured = agreement.count, agreement.measured
    table = Table(
        title=(
            f"{agreement.model}: {agreement.architecture}, {agreement.layers} layers, "
            f"{agreement.hidden_size} dimensions"
        ),
        caption=(
            f"damage: {measured.metric} ({measured.unit}) with the first {count} removed "
            f"together, on {agreement.examples} texts of {agreement.held_out}; ranked on "
            f"{measured.texts}"
        ),
    )
    table.add_column("method")
    table.add_column("first")
    table.add_column("outliers")
    table.add_column("damage", justify="right")
    table.add_column("captured", justify="right")
    for standing in agreement.standings:
        table.add_row(
            standing.method,
            numbers(standing.first),
            numbers(standing.outliers, _OUTLIERS_SHOWN) or "none",
            f"{standing.damage:+.4g}",
            "" if standing.captured is None else f"{standing.captured:.0%}",
        )
    shared = Table(title=f"dimensions shared among the first {count}")
    shared.add_column("")
    for method in agreement.overlap:
        shared.add_column(method, justify="right")
    for method, others in agreement.overlap.items():
        shared.add_row(method, *("" if name == method else str(k) for name, k in others.items()))
    console = out()
    console.print(table)
    for standing in agreement.standings:
        detector = find_detector(standing.method)
        console.print(f"{detector.name}: {detector.summary} ({detector.source})", soft_wrap=True)
    console.print(shared)
    if any(standing.captured is None for standing in agreement.standings):
        console.print(
            f"No method's first {count} do damage beyond that of random removals: there is nothing "
            "to capture.",
            soft_wrap=True,
        )
    show_warnings(agreement.warnings)


def show_warnings(warnings: tuple[str, ...]) -> None:
    """Show what a person should know beside a result."""
    for warning in warnings:
        print_text(f"Note: {warning}.", style="yellow")


def _explain_flags(dimensions: Sequence[Dimension]) -> None:
    """Say what the flags in a table are, each once."""
    from surgeon.ranking.criteria import CRITERIA

    met = {flag for dimension in dimensions for flag in dimension.flags}
    for name, criterion in CRITERIA.items():
        if name in met:
            print_text(f"{name}: {criterion.rule} ({criterion.source})")


def _table(ranking: Ranking, shown: int) -> Table:
    dimensions = ranking.dimensions[:shown]
    joint = any(dimension.added is not None for dimension in dimensions)
    table = Table(
        title=(
            f"{ranking.model}: {ranking.architecture}, {ranking.layers} layers, "
            f"{ranking.hidden_size} dimensions"
        ),
        caption=(
            f"{ranking.evidence}: {ranking.criterion}"
            + ("; added: the damage beside the outliers above it" if joint else "")
        ),
    )
    score, strength = ranking.columns
    flagged = any(dimension.flags for dimension in dimensions)
    table.add_column("dim", justify="right")
    table.add_column("outlier")
    if ranking.measured:
        table.add_column("damage", justify="right")
        table.add_column("95% interval", no_wrap=True)
        table.add_column("added", justify="right")
    else:
        table.add_column("layers that flag it", justify="right")
        table.add_column("which")
    for name in filter(None, (score, strength)):
        table.add_column(name, justify="right")
    if flagged:
        table.add_column("flags")
    for dimension in dimensions:
        table.add_row(
            str(dimension.dim),
            Text("yes", "bold red") if dimension.dim in ranking.outliers else "no",
            *(_damage(dimension) if ranking.measured else _layers(dimension, ranking)),
            *([f"{dimension.score:.2f}"] if score else []),
            *([f"{dimension.strength:.2f}"] if strength else []),
            *([", ".join(dimension.flags)] if flagged else []),
        )
    return table


def _layers(dimension: Dimension, ranking: Ranking) -> tuple[str, str]:
    return f"{len(dimension.layers)} of {ranking.layers}", numbers(dimension.layers)


def _damage(dimension: Dimension) -> tuple[str, str, str]:
    if dimension.damage is None or dimension.interval is None:
        return "not measured", "", ""
    low, high = dimension.interval
    added = "" if dimension.added is None else f"{dimension.added:+.3g}"
    return f"{dimension.damage:+.3g}", f"{low:+.3g} to {high:+.3g}", added


def _show_weak(weak: str, remedy: str | None) -> None:
    told = f"{_sentence(weak)}: {remedy}" if remedy else _sentence(weak)
    print_text(f"{told}.", style="yellow")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
