"""Where to put names along an axis so that none lies on another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


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
