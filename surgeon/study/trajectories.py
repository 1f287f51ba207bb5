"""What a trace says: dimensions over the steps of a training run, outliers among all others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from surgeon.ranking.layernorm import Standing, stand
from surgeon.ranking.zscores import ZScores
from surgeon.study.training_run import TrainingCheckpoint


@dataclass(frozen=True)
class Trajectory:
    """One dimension over the steps of a run; every series has a value per checkpoint.

    ``left_at`` is the step at which an outlier of the last checkpoint became one for good: the
    first of the unbroken run of checkpoints, to the last, that flag it. ``last_in_bulk`` is the
    step before, None if there is none: then it may have been any time up to ``left_at``. Both are
    None for other dimensions. ``flagged_at`` are all steps at which it met the criterion, ``score``
    is the share of layers that flag it, ``strength`` the mean over layers of the smaller of the
    two distances, ``reach`` how large it is in as many layers as make an outlier: the criterion is
    met where that is beyond sigma. ``gain_z`` and ``bias_z`` are signed means over layers.
    """

    dim: int
    outlier: bool
    left_at: int | None
    last_in_bulk: int | None
    flagged_at: tuple[int, ...]
    score: tuple[float, ...]
    strength: tuple[float, ...]
    reach: tuple[float, ...]
    gain_z: tuple[float, ...]
    bias_z: tuple[float, ...] | None


@dataclass(frozen=True)
class Band:
    """Where dimensions lie among each other at each step: three percentiles."""

    p1: tuple[float, ...]
    median: tuple[float, ...]
    p99: tuple[float, ...]


@dataclass(frozen=True)
class Bulk:
    """The ``dims`` dimensions that are not outliers of the last checkpoint, taken together."""

    dims: int
    strength: Band
    reach: Band
    gain_z: Band
    bias_z: Band | None


@dataclass(frozen=True)
class TransientOutlier:
    """A dimension that was an outlier and is not one at the end: the first and last step it was."""

    dim: int
    first: int
    last: int


@dataclass(frozen=True)
class Repeat:
    """A checkpoint on the Hub that has the very weights of a later one, so it is left out."""

    step: int
    same_as: int


@dataclass(frozen=True)
class Trace:
    """The norms over the checkpoints of one training run.

    ``outliers`` are those of the last checkpoint, strongest first. ``trajectories`` begin with
    theirs; those of the strongest other dimensions follow. ``needed`` of ``layers`` must flag an
    outlier, each beyond ``sigma``. ``transient`` is in the order in which they came. ``bulk`` is
    None where every dimension is an outlier, ``bytes_read`` where nothing was read off the Hub.
    ``checkpoints`` are without ``repeats``.
    """

    name: str
    architecture: str
    layers: int
    hidden_size: int
    evidence: str
    gain_name: str
    criterion: str
    sigma: float
    needed: int
    checkpoints: tuple[TrainingCheckpoint, ...]
    outliers: tuple[int, ...]
    trajectories: tuple[Trajectory, ...]
    transient: tuple[TransientOutlier, ...]
    bulk: Bulk | None
    bytes_read: int | None = None
    repeats: tuple[Repeat, ...] = ()

    @property
    def steps(self) -> tuple[int, ...]:
        """The step of each checkpoint."""
        return tuple(checkpoint.step for checkpoint in self.checkpoints)

    def to_json(self) -> dict[str, Any]:
        """Return the document that ``trace --json`` prints."""
        return {
            "model": self.name,
            "architecture": self.architecture,
            "layers": self.layers,
            "hidden_size": self.hidden_size,
            "evidence": self.evidence,
            "criterion": self.criterion,
            "sigma": self.sigma,
            "layers_needed": self.needed,
            "steps": list(self.steps),
            "checkpoints": [asdict(checkpoint) for checkpoint in self.checkpoints],
            "outliers": list(self.outliers),
            "dimensions": [asdict(trajectory) for trajectory in self.trajectories],
            "passing": [asdict(outlier) for outlier in self.transient],
            "bulk": asdict(self.bulk) if self.bulk else None,
            "bytes_read": self.bytes_read,
            "repeats": [asdict(repeat) for repeat in self.repeats],
        }


@dataclass(frozen=True)
class Snapshot:
    """What is kept of a checkpoint: arrays of shape (hidden,); z-scores are means over layers.

    ``reach`` is the distance that as many layers reach as make an outlier: a dimension is flagged
    exactly if it lies beyond sigma.
    """

    standing: Standing
    reach: npt.NDArray[np.float64]
    gain_z: npt.NDArray[np.float64]
    bias_z: npt.NDArray[np.float64] | None


def take_snapshot(zscores: ZScores, sigma: float, needed: int) -> Snapshot:
    """Return what a trace needs of a checkpoint, nothing of which grows with the layers."""
    return Snapshot(
        standing=stand(zscores, sigma),
        reach=np.sort(zscores.smaller, axis=0)[-needed].copy(),  # not a view of the whole
        gain_z=zscores.gain.mean(axis=0),
        bias_z=None if zscores.bias is None else np.nanmean(zscores.bias, axis=0),
    )


class Trajectories:
    """The snapshots of a run as arrays of shape (steps, hidden)."""

    def __init__(
        self, steps: Sequence[int], snapshots: Sequence[Snapshot], layers: int, needed: int
    ) -> None:
        counts = np.stack([one.standing.counts for one in snapshots])
        self._steps, self._flagged = np.array(steps), counts >= needed
        self._score = counts / layers
        self._strength = np.stack([one.standing.strength for one in snapshots])
        self._reach = np.stack([one.reach for one in snapshots])
        self._gain_z = np.stack([one.gain_z for one in snapshots])
        biases = [one.bias_z for one in snapshots if one.bias_z is not None]
        self._bias_z = np.stack(biases) if biases else None
        self._order = snapshots[-1].standing.order

    @property
    def outliers(self) -> tuple[int, ...]:
        """The outliers of the last checkpoint, strongest first."""
        return tuple(int(dim) for dim in self._order if self._flagged[-1, dim])

    def strongest(self, count: int) -> tuple[Trajectory, ...]:
        """Return the trajectories of all outliers, and of others to make ``count``."""
        # Every outlier is flagged by more layers than any other dimension, so they come first.
        dims = self._order[: max(count, len(self.outliers))]
        return tuple(self._of(int(dim)) for dim in dims)

    def transient(self) -> tuple[TransientOutlier, ...]:
        """Return the dimensions that were outliers but no longer are, by when they came."""
        dims = np.flatnonzero(self._flagged.any(axis=0) & ~self._flagged[-1])
        at = {int(dim): self._steps[self._flagged[:, dim]].tolist() for dim in dims}
        found = [TransientOutlier(dim, steps[0], steps[-1]) for dim, steps in at.items()]
        return tuple(sorted(found, key=lambda outlier: (outlier.first, outlier.dim)))

    def bulk(self) -> Bulk | None:
        """Return where the dimensions lie that are not outliers at the end, if there are any."""
        rest = ~self._flagged[-1]
        if not rest.any():
            return None
        return Bulk(
            dims=int(rest.sum()),
            strength=_band(self._strength[:, rest]),
            reach=_band(self._reach[:, rest]),
            gain_z=_band(self._gain_z[:, rest]),
            bias_z=None if self._bias_z is None else _band(self._bias_z[:, rest]),
        )

    def _of(self, dim: int) -> Trajectory:
        flagged = self._flagged[:, dim]
        outlier = bool(flagged[-1])
        in_bulk = np.flatnonzero(~flagged)
        left = int(in_bulk[-1]) + 1 if in_bulk.size else 0
        return Trajectory(
            dim=dim,
            outlier=outlier,
            left_at=int(self._steps[left]) if outlier else None,
            last_in_bulk=int(self._steps[left - 1]) if outlier and left else None,
            flagged_at=tuple(self._steps[flagged].tolist()),
            score=_floats(self._score[:, dim]),
            strength=_floats(self._strength[:, dim]),
            reach=_floats(self._reach[:, dim]),
            gain_z=_floats(self._gain_z[:, dim]),
            bias_z=None if self._bias_z is None else _floats(self._bias_z[:, dim]),
        )


def _band(values: npt.NDArray[np.float64]) -> Band:
    low, median, high = np.percentile(values, [1, 50, 99], axis=1)
    return Band(_floats(low), _floats(median), _floats(high))


def _floats(values: npt.NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(map(float, values))
