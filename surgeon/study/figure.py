"""What a figure of a sweep is, before it is drawn: curves of points, a strip, or a map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

COUNT, FACTOR, LAYER = "dimensions edited", "factor", "layer"
"""The axes of doses."""


@dataclass(frozen=True)
class Point:
    """The mean change over the seeds at one place of an axis.

    ``low`` and ``high`` hold every seed's 95% interval, ``band`` what random removals did.
    ``known`` is a point that nobody had to measure.
    """

    x: float
    label: str
    delta: float
    low: float
    high: float
    band: tuple[float, float]
    known: bool = False


@dataclass(frozen=True)
class Curve:
    """Points along an axis that alone varies."""

    name: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class DoseFigure:
    """Dose-response: the change over the ``axis``, a curve for each selection."""

    title: str
    axis: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class StripFigure:
    """One dimension at a time: ``dims`` (n,) ascending, the change ``deltas`` (n,) of each.

    ``band`` is what random removals of a single dimension do, and ``band_is`` how it was found:
    the middle 95% of the sweep's own, or, where those are few, the range of its controls.
    ``named`` are the dimensions worth a name: the strongest of those whose whole interval lies
    above the band.
    """

    title: str
    dims: npt.NDArray[np.int64]
    deltas: npt.NDArray[np.float64]
    band: tuple[float, float]
    band_is: str
    named: tuple[int, ...]


@dataclass(frozen=True)
class MapFigure:
    """One dimension in one layer at a time: ``deltas`` has shape (layers, dims), NaN for no row."""

    title: str
    layers: tuple[int, ...]
    dims: npt.NDArray[np.int64]
    deltas: npt.NDArray[np.float64]


Figure = DoseFigure | StripFigure | MapFigure
