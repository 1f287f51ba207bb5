"""What every form of the picture says and shows: words, named dimensions, colours, the raster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from surgeon.outliers import Dimension, Measured, Ranking, ZScores

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
ABSENT = "#eceff1"

MAX_COLUMNS = 550
"""More would be too narrow to see on a page or a screen."""

_CANDIDATES = 5
_NAMED = 15
_RANKED = 12
_LISTED = 8
_SCALE = 12
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


def named(ranking: Ranking) -> list[int]:
    """Return the dimensions to name on the maps: outliers, or else the strongest candidates."""
    if ranking.outliers:
        return list(ranking.outliers[:_NAMED])
    return [dimension.dim for dimension in ranking.dimensions[:_CANDIDATES]]


def strongest(ranking: Ranking) -> tuple[Dimension, ...]:
    """Return the dimensions of the ranking that are shown in detail, strongest first."""
    return ranking.dimensions[:_RANKED]


def layer_step(layers: int) -> int:
    """Return at every how many layers the axis of a map has a label."""
    return -(-layers // _LAYER_LABELS)


def dots_axis(zscores: ZScores) -> str:
    """Say in two lines what a dot of the evidence is."""
    of_both = f"the smaller of {zscores.gain_name} and bias"
    vectors = zscores.gain_name if zscores.bias is None else of_both
    return f"|z-score|, {vectors}\none dot per layer; filled: it flags the dimension"


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
    model = " ".join(ranking.model.split())
    model = model if len(model) <= _MODEL else f"…{model[1 - _MODEL :]}"
    found = len(ranking.outliers)
    if not found:
        return f"{model}: no dimension meets the criterion"
    dims = ", ".join(map(str, ranking.outliers[:_LISTED]))
    more = ", …" if found > _LISTED else ""
    return f"{model}: {found} outlier dimension{'s' if found > 1 else ''} ({dims}{more})"


def subtitle(ranking: Ranking, zscores: ZScores) -> list[str]:
    """Say in lines of their own what was looked at, what an outlier is, and how sure that is."""
    size = f"{ranking.architecture}, {ranking.layers} layers × {ranking.hidden_size:,} dimensions"
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
        f"Damage measured on {measured.examples:,} texts of {measured.texts}: "
        f"{measured.metric}, {measured.unit}"
    )
