"""Rankings for people: which dimensions, how sure that is, and where the detectors agree."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from surgeon.console.printing import numbers, print_caution, print_json, print_table, print_text
from surgeon.edit.files import check_new_file
from surgeon.edit.staging import replace_file
from surgeon.harmless import from_to
from surgeon.progress import duration

if TYPE_CHECKING:
    from surgeon.edit.plan import Plan
    from surgeon.ranking import Dimension, Ranking, ZScores
    from surgeon.ranking.agreement import Agreement


_OUTLIERS_SHOWN = 6


def show_ranking(
    ranking: Ranking,
    top: int,
    *,
    json: bool,
    settle: str | None = None,
    seconds: float = 0,
    zscores: ZScores | None = None,
) -> None:
    """Show the strongest dimensions, and which of them are outliers.

    ``settle`` is the command that measures where nothing was measured (None: there is none), and
    ``seconds`` what it takes, about. The JSON document has the ``zscores``.
    """
    if ranking.measured:
        settle = None
    if json:
        measure = {"command": settle, "seconds": round(seconds)} if settle else None
        vectors = {"zscores": zscores.to_json()} if zscores else {}
        print_json(ranking.to_json() | {"measure": measure} | vectors)
        return
    from surgeon.ranking.criteria import CRITERIA

    dimensions = ranking.dimensions[: max(top, len(ranking.outliers))]
    _show_dimensions(ranking, dimensions)
    for name, criterion in CRITERIA.items():
        if any(name in dimension.flags for dimension in dimensions):
            print_text(f"{name}: {criterion.rule} ({criterion.source})")
    if ranking.outliers:
        basis = "" if ranking.measured else f" ({ranking.basis})"
        print_text(f"Outliers: {numbers(ranking.outliers, limit=None)}{basis}")
    elif not ranking.weak:
        print_text("No dimension meets the criterion.")
    about = f", in about {duration(seconds)} on two cores" if seconds else ""
    _show_doubts(ranking, settle and f"{settle} measures what removing each does{about}")


def show_choice(
    plan: Plan, paper: Ranking | None, *, json: bool, settle: str | None = None
) -> None:
    """Say what chose an edit's dimensions, and what the paper's criterion would have chosen.

    ``paper`` is the ranking by that criterion (None: there is no other to compare with), and
    ``settle`` the command that measures where nothing was measured (None: there is none).
    """
    ranking = plan.ranking
    if json or ranking is None:
        return
    how = f"{ranking.method} ({'; '.join(filter(None, (ranking.basis, plan.relaxed)))})"
    print_text(f"Chosen: {numbers(plan.dims)}, by {how}{_other(plan, paper)}.")
    _show_doubts(ranking, settle and f"{settle} measures them first")


def _other(plan: Plan, paper: Ranking | None) -> str:
    """Say what the paper's criterion makes of a choice."""
    if paper is None:
        return ""
    count = len(plan.dims)
    first = tuple(dimension.dim for dimension in paper.dimensions[:count])
    if len(paper.outliers) < count:
        return (
            f"; by the paper's criterion, on the weights alone, {len(paper.outliers)} of "
            f"{paper.hidden_size} are outliers, and {numbers(first)} come first"
        )
    if set(first) == set(plan.dims):
        return "; the paper's criterion would choose the same"
    return f"; the paper's criterion would choose {numbers(first)}, by weights, not measured"


def _show_doubts(ranking: Ranking, remedy: str | None) -> None:
    # The basis stands beside the outliers; said again, it takes something to do about it.
    basis = ranking.basis if remedy and not ranking.measured else ""
    if doubt := ranking.weak or basis:
        print_caution(f"{doubt}: {remedy}" if remedy else doubt)
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
                "" if standing.captured is None else f"{standing.captured:z.0%}",
            )
            for standing in standings
        ],
        title=_title(agreement),
        caption=f"damage: {measured.metric} ({measured.unit}) with the first {count} removed "
        f"together, on {agreement.examples} texts of {agreement.held_out}; ranked on "
        f"{measured.texts}; outliers: by each method's criterion, which only ablation measures",
    )
    for standing in standings:
        detector = find_detector(standing.method)
        print_text(f"{detector.name}: {detector.summary} ({detector.source})")
    *methods, _ = overlap = agreement.overlap
    triangle = [
        (method, *map(str, list(shared.values())[:place]), *[""] * (len(methods) - place))
        for place, (method, shared) in enumerate(overlap.items())
    ]
    print_table(
        ["", *(f">{method}" for method in methods)],
        triangle[1:],
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
        evidence = (">damage", "95% interval", ">texts", ">added")
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
                _mark(dimension, ranking),
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


def _mark(dimension: Dimension, ranking: Ranking) -> str | Text:
    """Say whether a dimension is an outlier, and by what where that was not measured."""
    if dimension.dim not in ranking.outliers:
        return "no"
    return Text("yes", "bold red") if ranking.measured else Text(ranking.basis, "yellow")


def _layers(dimension: Dimension, layers: int) -> tuple[str, ...]:
    return f"{len(dimension.layers)} of {layers}", numbers(dimension.layers)


def _damage(dimension: Dimension) -> tuple[str, ...]:
    if dimension.damage is None:
        return "not measured", "", "", ""
    interval = from_to(dimension.interval, "+.3g") if dimension.interval else "open"
    added = "" if dimension.added is None else f"{dimension.added:+.3g}"
    return f"{dimension.damage:+.3g}", interval, str(dimension.examples), added


_CSV = ".csv"
_COLUMNS = (
    "dim", "outlier", "score", "strength", "layers", "damage", "low", "high", "texts", "added",
)  # fmt: skip


def check_ranking_table(path: Path, *, force: bool) -> None:
    """Refuse a table that could not be written, before anything is computed for it.

    Raises:
        OutputError: as ``check_table`` and ``check_new_file``.
    """
    from surgeon.study.run import PARQUET, check_table

    check_table(path, (_CSV, PARQUET), f"give {_CSV} or {PARQUET}")
    check_new_file(path, force=force)


def write_ranking_table(
    ranking: Ranking, zscores: ZScores, path: Path, *, force: bool = False
) -> None:
    """Write a ranking with the z-scores of each layer, as CSV or Parquet by the suffix.

    ``layers`` is how many flag the dimension, ``low`` to ``high`` the interval of its damage; what
    is not known is empty. ``gain_z_0`` is the z-score in the first of the layers.

    Raises:
        OutputError: the file exists and ``force`` is off.
    """
    columns = _columns(ranking, zscores)
    if path.suffix.lower() == _CSV:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        header = text.getvalue().strip().encode()
        writer.writerows(zip(*columns.values(), strict=True))

        def is_table(there: Path) -> bool:
            with there.open("rb") as file:
                return file.readline().strip() == header

        replace_file(path, text.getvalue().encode(), is_table if force else None)
        return
    import pyarrow as pa

    from surgeon.study.run import open_table, with_types

    table = with_types(pa.table(columns), {"texts": pa.int64()}, pa.float64())
    with open_table(path, table.schema, force=force) as writer:
        writer.write_table(table)


def _columns(ranking: Ranking, zscores: ZScores) -> dict[str, list[Any]]:
    outliers = set(ranking.outliers)
    rows = [
        (
            d.dim,
            d.dim in outliers,
            d.score,
            d.strength,
            len(d.layers),
            d.damage,
            *(d.interval or (None, None)),
            d.examples,
            d.added,
        )
        for d in ranking.dimensions
    ]
    named = zip(_COLUMNS, map(list, zip(*rows, strict=True)), strict=True)
    order = [dimension.dim for dimension in ranking.dimensions]
    return dict(named) | {
        f"{name}_{number}": vector[order].tolist()
        for name, values in (("gain_z", zscores.gain), ("bias_z", zscores.bias))
        if values is not None
        for number, vector in enumerate(values)
    }
