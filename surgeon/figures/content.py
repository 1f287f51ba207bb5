"""What every form of the picture says and shows: words, named dimensions, colours, the raster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from surgeon.harmless import shortened
from surgeon.ranking import (
    ByLayer,
    Dimension,
    Measured,
    Ranking,
    ZScores,
    distances,
)

CLIP = 6.0
"""Z-scores beyond this have the strongest colour."""
STEP = 3.0
"""Where the colours jump, since the field calls |z| > 3 an outlier."""

COLOURS = (  # z-score → colour; blue and red stay apart in every common colour blindness
    (-CLIP, "#08306b"),
    (-STEP, "#4a90c8"),
    (-STEP, "#dbe7f1"),
    (0.0, "#ffffff"),
    (STEP, "#f7e3d8"),
    (STEP, "#e0663f"),
    (CLIP, "#7a0016"),
)
INK, QUIET, FAINT, OUTLIER = "#1a1a1a", "#5f6b76", "#c9d1d8", "#b2182b"
REMOVED = "#6a2c91"
ABSENT = "#eceff1"

MAX_COLUMNS = 550
"""More would be too narrow to see on a page or a screen."""

_CANDIDATES = 5
_NAMED = 15
_RANKED = 12
_LISTED = 8
_SCALE = 12
_SMALLEST = 0.1  # of a logarithmic axis: a gain of 0 has none
_LAYER_LABELS = 13
_MODEL = 64  # characters of a name


@dataclass(frozen=True)
class Raster:
    """A map of z-scores with at most ``MAX_COLUMNS`` columns of ``width`` dimensions each.

    ``values`` and ``dims`` have shape (layers, columns): the z-score farthest from 0 in each cell,
    and the dimension that has it.
    """

    values: npt.NDArray[np.float64]
    dims: npt.NDArray[np.int64]
    width: int


def pooled(zscores: npt.NDArray[np.float64]) -> Raster:
    """Keep of neighbouring dimensions the one farthest from 0, so that no outlier is lost.

    Args:
        zscores: of shape (layers, hidden), rows of NaN allowed.
    """
    layers, hidden = zscores.shape
    width = -(-hidden // MAX_COLUMNS)
    columns = -(-hidden // width)
    padded = np.pad(zscores, ((0, 0), (0, columns * width - hidden)), constant_values=0)
    cells = padded.reshape(layers, columns, width)
    # An absent vector is NaN throughout; argmax then gives its first dimension.
    farthest = np.abs(cells).argmax(axis=2)
    values = np.take_along_axis(cells, farthest[..., None], axis=2)[..., 0]
    dims = farthest + width * np.arange(columns)
    return Raster(values, np.minimum(dims, hidden - 1), width)


def panels(zscores: ZScores) -> list[tuple[str, npt.NDArray[np.float64]]]:
    """Return the maps to draw, each under its name."""
    maps = [(zscores.gain_name, zscores.gain)]
    return maps if zscores.bias is None else [*maps, ("bias", zscores.bias)]


def named(ranking: Ranking, removed: Sequence[int] = ()) -> list[int]:
    """Return the dimensions to name on the maps: those that were removed, and the outliers.

    Where there are no outliers, the strongest candidates take their place.
    """
    strong = ranking.outliers or [d.dim for d in ranking.dimensions[:_CANDIDATES]]
    return list(dict.fromkeys((*removed[:_NAMED], *strong)))[:_NAMED]


def strongest(ranking: Ranking, removed: Sequence[int] = ()) -> tuple[Dimension, ...]:
    """Return the dimensions that are shown in detail, strongest first.

    Those that were removed come after them, where they are not among them.
    """
    first, rest = ranking.dimensions[:_RANKED], ranking.dimensions[_RANKED:]
    return (*first, *[d for d in rest if d.dim in removed[:_NAMED]])


def colour(dim: int, ranking: Ranking, removed: Sequence[int] = ()) -> str:
    """Return the colour of a dimension: removed, outlier, or neither."""
    if dim in removed:
        return REMOVED
    return OUTLIER if dim in ranking.outliers else QUIET


def standing(ranking: Ranking, removed: Sequence[int]) -> str:
    """Say where the dimensions that were removed lie among all."""
    places = {d.dim: place for place, d in enumerate(ranking.dimensions, start=1)}
    told = [f"{dim} is number {places[dim]}" for dim in removed[:_NAMED]]
    more = ", …" if len(removed) > _NAMED else ""
    return f"Removed, of {len(places):,} by this ranking: {', '.join(told)}{more}"


def layer_step(layers: int) -> int:
    """Return at every how many layers the axis of a map has a label."""
    return -(-layers // _LAYER_LABELS)


def dots(ranking: Ranking, zscores: ZScores) -> ByLayer:
    """Return what a dot of the evidence is: what the ranking judged by, or else the distances.

    ``ratios`` is left on where one linear scale does not show them all.
    """
    judged_by = ranking.by_layer or distances(zscores, STEP)
    shown = [dimension.dim for dimension in strongest(ranking)]
    far = _SCALE * judged_by.threshold < judged_by.values[:, shown].max()
    if not (judged_by.ratios and far):
        return replace(judged_by, ratios=False)
    return replace(
        judged_by,
        values=np.maximum(judged_by.values, _SMALLEST),
        meaning=f"{judged_by.meaning} ({_SMALLEST:g} stands for less)",
    )


def dots_axis(judged_by: ByLayer) -> str:
    """Say in two lines what a dot of the evidence is."""
    return f"{judged_by.meaning}\none dot per layer; filled: it flags the dimension"


def log_threshold(shown: Sequence[Dimension], measured: Measured) -> float | None:
    """Return above which damage the axis is logarithmic, or None if one scale shows it all.

    The largest damage can be a hundred times the least that counts; both must be seen.
    """
    bound = max(measured.min_damage, *measured.control_range)
    largest = max((dimension.damage or 0.0 for dimension in shown), default=0.0)
    return bound if 0 < _SCALE * bound < largest else None


def signed(damage: float) -> str:
    """Write a damage with its sign, to three digits."""
    return f"{damage:+.3g}".replace("-", "−")


def headline(ranking: Ranking) -> str:
    """Say in a line what was found in which model."""
    model = shortened(ranking.model, _MODEL)
    found = len(ranking.outliers)
    if not found:
        return f"{model}: no dimension meets the criterion"
    dims = ", ".join(map(str, ranking.outliers[:_LISTED]))
    more = ", …" if found > _LISTED else ""
    return f"{model}: {found} outlier dimension{'s' if found > 1 else ''} ({dims}{more})"


def subtitle(ranking: Ranking, zscores: ZScores) -> list[str]:
    """Say in lines of their own what was looked at, what an outlier is, and how sure that is."""
    layers = f"{ranking.layers} layers × {ranking.hidden_size:,} dimensions"
    size = f"{shortened(ranking.architecture)}, {layers}"
    maps = "" if zscores.evidence == ranking.evidence else f"; maps: {zscores.evidence}"
    return [
        f"{size}; {ranking.evidence}{maps}",
        f"Criterion ({ranking.method}): {ranking.criterion}",
        _certainty(ranking),
    ]


def _certainty(ranking: Ranking) -> str:
    measured = ranking.measured
    if measured is None:
        return "What removing a dimension does was not measured: the ranking alone is weak evidence"
    return (
        f"Damage measured on {measured.examples:,} texts of {shortened(measured.texts)}: "
        f"{measured.metric}, {measured.unit}"
    )


def spread(
    wanted: Sequence[float], widths: Sequence[float], low: float, high: float, apart: float
) -> npt.NDArray[np.float64]:
    """Move centres as little as possible (least squares) until no two labels meet.

    Subtracting from each centre how far it must lie from the first leaves only the order to keep,
    which is an isotonic regression.

    Args:
        wanted: the centres that the labels would have if each were alone, ascending.
        widths: of the labels, in the same unit, as all that follows.
        low: no label begins before this,
        high: and none ends after it, if they fit in between at all.
        apart: the space between neighbours.
    """
    from scipy.optimize import isotonic_regression

    size = np.asarray(widths, dtype=np.float64)
    steps = (size[1:] + size[:-1]) / 2 + apart
    offsets = np.concatenate([[0.0], np.cumsum(steps)])
    first = isotonic_regression(np.asarray(wanted, dtype=np.float64) - offsets).x
    last_start = high - size[-1] / 2 - offsets[-1]
    start = low + size[0] / 2
    centres: npt.NDArray[np.float64] = np.clip(first, start, max(start, last_start)) + offsets
    return centres
