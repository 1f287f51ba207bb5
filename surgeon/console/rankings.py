"""Rankings for people: which dimensions, how sure that is, and where the detectors agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from surgeon.console.printing import numbers, print_caution, print_json, print_table, print_text

if TYPE_CHECKING:
    from surgeon.edit.plan import Plan
    from surgeon.ranking import Agreement, Dimension, Ranking


_OUTLIERS_SHOWN = 6


def show_ranking(ranking: Ranking, top: int, *, json: bool, settle: str | None = None) -> None:
    """Show the strongest dimensions, and which of them are outliers.

    ``settle`` is the command that measures where the evidence is weak (None: there is none).
    """
    if json:
        print_json(ranking.to_json())
        return
    from surgeon.ranking.criteria import CRITERIA

    dimensions = ranking.dimensions[: max(top, len(ranking.outliers))]
    _show_dimensions(ranking, dimensions)
    for name, criterion in CRITERIA.items():
        if any(name in dimension.flags for dimension in dimensions):
            print_text(f"{name}: {criterion.rule} ({criterion.source})")
    if ranking.outliers:
        print_text(f"Outliers: {numbers(ranking.outliers, limit=None)}")
    elif not ranking.weak:
        print_text("No dimension meets the criterion.")
    _show_doubts(ranking, settle and f"{settle} measures what removing each does")


def show_weakness(plan: Plan, *, json: bool, settle: str | None = None) -> None:
    """Say so where the evidence that chose an edit's dimensions is weak.

    ``settle`` is the command that measures them (None: there is none).
    """
    if not json and plan.ranking is not None:
        _show_doubts(plan.ranking, settle and f"{settle} measures them first")


def _show_doubts(ranking: Ranking, remedy: str | None) -> None:
    if ranking.weak:
        print_caution(f"{ranking.weak}: {remedy}" if remedy else ranking.weak)
    for warning in ranking.warnings:
        print_caution(f"Note: {warning}")


def show_agreement(agreement: Agreement, *, json: bool) -> None:
    """Show the detectors side by side."""
    if json:
        print_json(agreement.to_json())
        return
    from surgeon.ranking import find_detector

    count, measured, standings = agreement.count, agreement.measured, agreement.standings
    print_table(
        ["method", "first", "outliers", ">damage", ">captured"],
        [
            (
                standing.method,
                numbers(standing.first),
                numbers(standing.outliers, _OUTLIERS_SHOWN) or "none",
                f"{standing.damage:+.4g}",
                "" if standing.captured is None else f"{standing.captured:.0%}",
            )
            for standing in standings
        ],
        title=_title(agreement),
        caption=f"damage: {measured.metric} ({measured.unit}) with the first {count} removed "
        f"together, on {agreement.examples} texts of {agreement.held_out}; ranked on "
        f"{measured.texts}",
    )
    for standing in standings:
        detector = find_detector(standing.method)
        print_text(f"{detector.name}: {detector.summary} ({detector.source})")
    print_table(
        ["", *(f">{method}" for method in agreement.overlap)],
        [
            (method, *("" if name == method else str(shared) for name, shared in others.items()))
            for method, others in agreement.overlap.items()
        ],
        title=f"dimensions shared among the first {count}",
    )
    if any(standing.captured is None for standing in standings):
        print_text(
            f"No method's first {count} do damage beyond that of random removals: there is nothing "
            "to capture."
        )
    for warning in agreement.warnings:
        print_caution(f"Note: {warning}")


def _title(found: Ranking | Agreement) -> str:
    size = f"{found.layers} layers, {found.hidden_size} dimensions"
    return f"{found.model}: {found.architecture}, {size}"


def _show_dimensions(ranking: Ranking, dimensions: tuple[Dimension, ...]) -> None:
    score, strength = ranking.columns
    flagged = any(dimension.flags for dimension in dimensions)
    evidence: tuple[str, ...] = (">layers that flag it", "which")
    if ranking.measured:
        evidence = (">damage", "=95% interval", ">added")
    joint = any(dimension.added is not None for dimension in dimensions)
    added = "; added: the damage beside the outliers above it" if joint else ""
    print_table(
        [
            ">dim",
            "outlier",
            *evidence,
            *(f">{name}" for name in ranking.columns if name),
            *(["flags"] if flagged else []),
        ],
        [
            (
                str(dimension.dim),
                Text("yes", "bold red") if dimension.dim in ranking.outliers else "no",
                *(_damage(dimension) if ranking.measured else _layers(dimension, ranking.layers)),
                *([f"{dimension.score:.2f}"] if score else []),
                *([f"{dimension.strength:.2f}"] if strength else []),
                *([", ".join(dimension.flags)] if flagged else []),
            )
            for dimension in dimensions
        ],
        title=_title(ranking),
        caption=f"{ranking.evidence}: {ranking.criterion}{added}",
    )


def _layers(dimension: Dimension, layers: int) -> tuple[str, ...]:
    return f"{len(dimension.layers)} of {layers}", numbers(dimension.layers)


def _damage(dimension: Dimension) -> tuple[str, ...]:
    if dimension.damage is None or dimension.interval is None:
        return "not measured", "", ""
    low, high = dimension.interval
    added = "" if dimension.added is None else f"{dimension.added:+.3g}"
    return f"{dimension.damage:+.3g}", f"{low:+.3g} to {high:+.3g}", added
