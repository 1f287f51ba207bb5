"""From what was kept of each checkpoint to the course of each dimension."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from surgeon.outliers.layernorm import Standing, stand
from surgeon.outliers.zscores import ZScores
from surgeon.study.trace_result import Band, Bulk, Course, Passing


@dataclass(frozen=True)
class Look:
    """What is kept of a checkpoint: arrays of shape (hidden,); gain and bias are means over layers.

    ``reach`` is the distance that as many layers reach as make an outlier: one is flagged exactly
    if it lies beyond sigma.
    """

    standing: Standing
    reach: npt.NDArray[np.float64]
    gain: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64] | None

    @classmethod
    def at(cls, zscores: ZScores, sigma: float, needed: int) -> Look:
        """Keep what a trace needs, and nothing that grows with the layers."""
        return cls(
            standing=stand(zscores, sigma),
            reach=np.sort(zscores.smaller, axis=0)[-needed].copy(),  # not a view of the whole
            gain=zscores.gain.mean(axis=0),
            bias=None if zscores.bias is None else np.nanmean(zscores.bias, axis=0),
        )


@dataclass(frozen=True)
class Run:
    """The looks at a run's checkpoints as arrays of shape (steps, hidden)."""

    steps: tuple[int, ...]
    flagged: npt.NDArray[np.bool_]
    score: npt.NDArray[np.float64]
    strength: npt.NDArray[np.float64]
    reach: npt.NDArray[np.float64]
    gain: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64] | None
    last: Standing

    @classmethod
    def of(cls, steps: Sequence[int], looks: Sequence[Look], layers: int, needed: int) -> Run:
        """Put the looks one below the other; ``needed`` of ``layers`` make an outlier."""
        counts = np.stack([look.standing.counts for look in looks])
        biases = [look.bias for look in looks if look.bias is not None]
        return cls(
            steps=tuple(steps),
            flagged=counts >= needed,
            score=counts / layers,
            strength=np.stack([look.standing.strength for look in looks]),
            reach=np.stack([look.reach for look in looks]),
            gain=np.stack([look.gain for look in looks]),
            bias=np.stack(biases) if biases else None,
            last=looks[-1].standing,
        )

    @property
    def outliers(self) -> tuple[int, ...]:
        """The outliers of the last checkpoint, strongest first."""
        return tuple(int(dim) for dim in self.last.order if self.flagged[-1, dim])


def courses(run: Run, count: int) -> tuple[Course, ...]:
    """Return the courses of all outliers, and of the strongest others to make ``count``."""
    # Every outlier is flagged by more layers than any other dimension, so they come first.
    dims = run.last.order[: max(count, len(run.outliers))]
    return tuple(_course(run, int(dim)) for dim in dims)


def passing(run: Run) -> tuple[Passing, ...]:
    """Return the dimensions that were outliers and are none at the end, by when they came."""
    once = np.flatnonzero(run.flagged.any(axis=0) & ~run.flagged[-1])
    at = {int(dim): np.flatnonzero(run.flagged[:, dim]) for dim in once}
    found = [Passing(dim, run.steps[i[0]], run.steps[i[-1]]) for dim, i in at.items()]
    return tuple(sorted(found, key=lambda passed: (passed.first, passed.dim)))


def bulk(run: Run) -> Bulk | None:
    """Return where the dimensions lie that are no outliers at the end; None if there are none."""
    rest = ~run.flagged[-1]
    if not rest.any():
        return None
    return Bulk(
        dims=int(rest.sum()),
        strength=_band(run.strength[:, rest]),
        reach=_band(run.reach[:, rest]),
        gain_z=_band(run.gain[:, rest]),
        bias_z=None if run.bias is None else _band(run.bias[:, rest]),
    )


def _course(run: Run, dim: int) -> Course:
    flagged = run.flagged[:, dim]
    outlier = bool(flagged[-1])
    in_bulk = np.flatnonzero(~flagged)
    left = int(in_bulk[-1]) + 1 if in_bulk.size else 0
    return Course(
        dim=dim,
        outlier=outlier,
        left_at=run.steps[left] if outlier else None,
        last_in_bulk=run.steps[left - 1] if outlier and left else None,
        flagged_at=tuple(run.steps[number] for number in np.flatnonzero(flagged)),
        score=_floats(run.score[:, dim]),
        strength=_floats(run.strength[:, dim]),
        reach=_floats(run.reach[:, dim]),
        gain_z=_floats(run.gain[:, dim]),
        bias_z=None if run.bias is None else _floats(run.bias[:, dim]),
    )


def _band(values: npt.NDArray[np.float64]) -> Band:
    low, median, high = np.percentile(values, [1, 50, 99], axis=1)
    return Band(_floats(low), _floats(median), _floats(high))


def _floats(values: npt.NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(map(float, values))
