"""What a trace tells: the course of each outlier over the steps, and where the bulk was."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from surgeon.study.series import Stop


@dataclass(frozen=True)
class Course:
    """One dimension over the steps of a run; every series has a value per checkpoint.

    ``left_at`` is the step at which an outlier of the last checkpoint left the bulk for good: the
    first of the unbroken run of checkpoints, to the last, that flag it. ``last_in_bulk`` is the
    step before, None if there is none: then it may have left any time up to ``left_at``. Both are
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
    """The ``dims`` dimensions that are no outliers of the last checkpoint, taken together."""

    dims: int
    strength: Band
    reach: Band
    gain_z: Band
    bias_z: Band | None


@dataclass(frozen=True)
class Passing:
    """A dimension that was an outlier and is none at the end: the first and last step it was."""

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

    ``outliers`` are those of the last checkpoint, strongest first. ``courses`` begin with theirs;
    those of the strongest other dimensions follow. ``needed`` of ``layers`` must flag an outlier,
    each beyond ``sigma``. ``passing`` is in the order in which they came. ``bulk`` is None where
    every dimension is an outlier, ``bytes_read`` where nothing was read off the Hub. ``stops`` are
    without ``repeats``.
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
    stops: tuple[Stop, ...]
    outliers: tuple[int, ...]
    courses: tuple[Course, ...]
    passing: tuple[Passing, ...]
    bulk: Bulk | None
    bytes_read: int | None = None
    repeats: tuple[Repeat, ...] = ()

    @property
    def steps(self) -> tuple[int, ...]:
        """The step of each checkpoint."""
        return tuple(stop.step for stop in self.stops)

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
            "checkpoints": [
                {"step": stop.step, "model": stop.model, "revision": stop.revision}
                for stop in self.stops
            ],
            "outliers": list(self.outliers),
            "dimensions": [asdict(course) for course in self.courses],
            "passing": [asdict(passing) for passing in self.passing],
            "bulk": asdict(self.bulk) if self.bulk else None,
            "bytes_read": self.bytes_read,
            "repeats": [asdict(repeat) for repeat in self.repeats],
        }
