"""The picture of a ranking: z-scores as maps, the strongest dimensions below them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from surgeon.figures.picture import (
    OUTLIER,
    QUIET,
    REMOVED,
    Bars,
    Dots,
    LabelRow,
    Map,
    Mark,
    Panel,
    Picture,
    Scale,
    Span,
    Threshold,
    pooled,
)
from surgeon.harmless import from_to, listed, shortened, with_minus
from surgeon.ranking import ByLayer, Dimension, Measured, Ranking, ZScores, distances

if TYPE_CHECKING:
    from surgeon.ranking.agreement import Agreement

_CLIP, _STEP = 6.0, 3.0
_COLOURS = (  # z-score → colour; blue and red stay apart in every common colour blindness
    (-_CLIP, "#08306b"),
    (-_STEP, "#4a90c8"),  # the colours jump here, since the field calls |z| > 3 an outlier
    (-_STEP, "#dbe7f1"),
    (0.0, "#ffffff"),
    (_STEP, "#f7e3d8"),
    (_STEP, "#e0663f"),
    (_CLIP, "#7a0016"),
)
_Z_SCORES = Scale(
    limit=_CLIP,
    colours=tuple(((z + _CLIP) / (2 * _CLIP), colour) for z, colour in _COLOURS),
    ticks=((-6, "≤ −6σ"), (-3, "−3σ"), (0, "0"), (3, "+3σ"), (6, "≥ +6σ")),
)

_CANDIDATES = 5
_NAMED = 15
_RANKED = 12
_LISTED = 8
_WIDE = 12  # times the threshold: one linear scale does not show both
_SMALLEST = 0.1  # of a logarithmic axis: a gain of 0 has none
_MODEL = 64  # characters of a name
_MOST = 0.9  # of the damage that any method's first dimensions do


def draw_ranking(ranking: Ranking, zscores: ZScores, removed: Sequence[int] = ()) -> Picture:
    """Describe the picture of a ranking and of the z-scores of the same checkpoint.

    What was ``removed`` from the model is named, strong or not.
    """
    marks = tuple(
        Mark(dim, str(dim), colour, bold=colour != QUIET)
        for dim in sorted(named(ranking, removed))
        for colour in [_colour(dim, ranking, removed)]
    )
    vectors = {zscores.gain_name: zscores.gain, "bias": zscores.bias}
    maps = [
        Map(
            title=f"{name.capitalize()}: z-scores",
            y_title="layer",
            rows=zscores.rows,
            raster=pooled(vector),
            scale=_Z_SCORES,
            value=name,
            form="+.2f",
            unit="σ",
            marks=marks,
        )
        for name, vector in vectors.items()
        if vector is not None
    ]
    maps[-1] = replace(maps[-1], x_title="dimension")
    rows = []
    for dimension in strongest(ranking, removed):
        dim, colour = dimension.dim, _colour(dimension.dim, ranking, removed)
        label = f"{dim} removed" if dim in removed else str(dim)
        rows.append((dimension, LabelRow(label, colour, bold=colour != QUIET)))
    evidence = [_dots(ranking, zscores, rows), _shares(ranking.layers, zscores.rows, rows)]
    if ranking.measured:
        evidence.append(_damages(ranking.measured, rows))
    return Picture(
        headline(ranking), words(ranking, zscores), (*((one,) for one in maps), tuple(evidence))
    )


_Rows: TypeAlias = Sequence[tuple[Dimension, LabelRow]]


def _dots(ranking: Ranking, zscores: ZScores, rows: _Rows) -> Panel:
    judged_by = dots(ranking, zscores)
    return Dots(
        title=judged_by.title,
        x_title=f"{judged_by.meaning}\none dot per layer; filled: it flags the dimension",
        y_title="dimension, strongest first",
        share=4.2,
        rows=tuple(
            replace(
                row,
                values=(values := judged_by.values[:, dimension.dim].tolist()),
                filled=[layer in dimension.layers for layer in range(len(values))],
                hover=[
                    f"dim {dimension.dim}, layer {layer}: {value:.2f}{judged_by.unit}"
                    for layer, value in zip(zscores.rows, values, strict=True)
                ],
            )
            for dimension, row in rows
        ),
        threshold=Threshold(judged_by.threshold, f"{judged_by.threshold:g}{judged_by.unit}"),
        log_above=0 if judged_by.ratios else None,
    )


def _shares(layers: int, labels: Sequence[str], rows: _Rows) -> Panel:
    def flagged(dimension: Dimension) -> str:
        names = ", ".join(labels[layer] for layer in dimension.layers)
        return f"dim {dimension.dim}, flagged by: {names or 'none'}"

    return Bars(
        title="Layers that flag it",
        x_title="share of layers",
        share=2.2,
        rows=tuple(
            replace(
                row,
                values=(len(dimension.layers) / layers,),
                hover=(flagged(dimension),),
                text=f"{len(dimension.layers)} of {layers}",
            )
            for dimension, row in rows
        ),
    )


def _damages(measured: Measured, rows: _Rows) -> Panel:
    bound = max(measured.min_damage, *(measured.control_range or ()))
    largest = max((dimension.damage or 0.0 for dimension, _ in rows), default=0.0)
    # The largest damage can be a hundred times the least that counts; both must be seen.
    above = bound if 0 < _WIDE * bound < largest else None
    drawn = [
        replace(row, text="not measured")
        if dimension.damage is None
        else _with_damage(row, f"dim {dimension.dim}", dimension.damage, dimension.interval)
        for dimension, row in rows
    ]
    panel = _damage_panel(measured, "Damage when it is removed", drawn, "random removals")
    return replace(panel, log_above=above)


def _damage_panel(measured: Measured, title: str, rows: Sequence[LabelRow], span: str) -> Dots:
    return Dots(
        title=title,
        x_title=f"rise of the {measured.metric}, with its 95% interval\n{measured.unit}",
        share=5.0,
        rows=tuple(rows),
        span=Span(*measured.control_range, span) if measured.control_range else None,
        threshold=Threshold(measured.min_damage, "least damage that counts"),
    )


def _with_damage(
    row: LabelRow, name: str, damage: float, interval: tuple[float, float] | None
) -> LabelRow:
    text = with_minus(f"{damage:+.3g}")
    hover = f"{name}: {text}" + (f" ({with_minus(from_to(interval, '+.3g'))})" if interval else "")
    return replace(
        row, values=(damage,), filled=(True,), hover=(hover,), interval=interval, text=text
    )


def named(ranking: Ranking, removed: Sequence[int] = ()) -> list[int]:
    """Return the dimensions to name on the maps: those that were removed, and the outliers.

    Where there are no outliers, the strongest candidates take their place.
    """
    strong = ranking.outliers or [d.dim for d in ranking.dimensions[:_CANDIDATES]]
    return list(dict.fromkeys((*removed[:_NAMED], *strong)))[:_NAMED]


def strongest(ranking: Ranking, removed: Sequence[int] = ()) -> tuple[Dimension, ...]:
    """Return the dimensions that are shown in detail, strongest first, then others removed."""
    first, rest = ranking.dimensions[:_RANKED], ranking.dimensions[_RANKED:]
    return (*first, *[d for d in rest if d.dim in removed[:_NAMED]])


def _colour(dim: int, ranking: Ranking, removed: Sequence[int]) -> str:
    if dim in removed:
        return REMOVED
    return OUTLIER if dim in ranking.outliers else QUIET


def dots(ranking: Ranking, zscores: ZScores) -> ByLayer:
    """Return what a dot of the evidence is: what the ranking judged by, or else the distances.

    ``ratios`` is left on where one linear scale does not show them all.
    """
    judged_by = ranking.by_layer or distances(zscores, _STEP)
    shown = [dimension.dim for dimension in strongest(ranking)]
    wide = _WIDE * judged_by.threshold < judged_by.values[:, shown].max()
    if not (judged_by.ratios and wide):
        return replace(judged_by, ratios=False)
    return replace(
        judged_by,
        values=np.maximum(judged_by.values, _SMALLEST),
        meaning=f"{judged_by.meaning} ({_SMALLEST:g} stands for less)",
    )


def standing(ranking: Ranking, removed: Sequence[int]) -> str:
    """Say where the dimensions that were removed lie among all."""
    places = {d.dim: place for place, d in enumerate(ranking.dimensions, start=1)}
    each = listed((f"{dim} is number {places[dim]}" for dim in removed), _NAMED)
    return f"Removed, of {len(places):,} by this ranking: {each}"


def headline(ranking: Ranking) -> str:
    """Say in a line what was found in which model."""
    model = shortened(ranking.model, _MODEL)
    if not ranking.outliers:
        return f"{model}: no dimension meets the criterion"
    basis = "" if ranking.measured else ranking.basis
    return f"{model}: {outliers_in_words(ranking.outliers, '', basis)}"


def outliers_in_words(outliers: Sequence[int], when: str, basis: str) -> str:
    """Say how many outliers there are ``when``, which come first, and if that was measured."""
    many, dims = "s" * (len(outliers) > 1), listed(outliers, _LISTED)
    return f"{len(outliers)} outlier dimension{many}{when} ({dims}){basis and f', {basis}'}"


def words(ranking: Ranking, zscores: ZScores) -> tuple[str, ...]:
    """Say in lines of their own what was looked at, what an outlier is, and how sure that is."""
    size = f"{ranking.layers} layers × {ranking.hidden_size:,} dimensions"
    maps = "" if zscores.evidence == ranking.evidence else f"; maps: {zscores.evidence}"
    measured = ranking.measured
    return (
        f"{shortened(ranking.architecture)}, {size}; {ranking.evidence}{maps}",
        f"Criterion ({ranking.method}): {ranking.criterion}",
        f"{ranking.basis.capitalize()}: surgeon scan --method ablation measures what removing a "
        "dimension does"
        if measured is None
        else f"Damage measured on at most {measured.examples:,} texts of "
        f"{shortened(measured.texts)}: {measured.metric}, {measured.unit}",
    )


def draw_agreement(agreement: Agreement) -> Picture:
    """Describe what removing each method's first dimensions together does."""
    measured, count = agreement.measured, agreement.count
    damages, shares = [], []
    for found in agreement.standings:
        first = ", ".join(map(str, found.first[:count]))
        captured = max(found.captured or 0.0, 0.0)
        colour = OUTLIER if captured > _MOST else QUIET
        row = LabelRow(f"{found.method}: {first}", colour, bold=False)
        name = f"{found.method}, without {first}"
        damages.append(_with_damage(row, name, found.damage, found.interval))
        shares.append(
            replace(damages[-1], values=(captured,), text=f"{captured:.0%}", interval=None)
        )
    title = f"Damage of the first {count}, removed together"
    panel = replace(
        _damage_panel(measured, title, damages, "one random removal"),
        y_title="method, and its first dimensions",
    )
    captures = Bars(title="Captured", x_title="share of the most", share=2.2, rows=tuple(shares))
    size = f"{agreement.layers} layers × {agreement.hidden_size:,} dimensions"
    chosen, judged = shortened(measured.texts), shortened(agreement.held_out)
    words = (
        f"{shortened(agreement.architecture)}, {size}; each method chose on {chosen}",
        f"Damage measured on {agreement.examples:,} texts of {judged}, which chose nothing",
    )
    model = shortened(agreement.model, _MODEL)
    # Where no damage is beyond chance, there is nothing to capture.
    panels = (panel,) if agreement.standings[0].captured is None else (panel, captures)
    return Picture(f"{model}: the methods side by side", words, (panels,))
