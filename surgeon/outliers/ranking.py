"""The one result that every detector yields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Measured:
    """How the damage of a ranking was measured.

    ``task``, ``metric`` and ``unit`` are those of the evaluation, ``texts`` and ``sha256`` name
    what it read, ``examples`` of them. A damage below ``min_damage`` does not count;
    ``control_range`` is that of random removals.
    """

    task: str
    metric: str
    unit: str
    texts: str
    sha256: str
    examples: int
    min_damage: float
    control_range: tuple[float, float]


@dataclass(frozen=True)
class Dimension:
    """One dimension's evidence.

    ``score`` orders the ranking together with ``strength``, which separates equal scores (both:
    larger is stronger; each detector says what they are). ``layers`` flag the dimension. ``damage``
    is how much worse the model does without it, with a 95% ``interval``, where it was measured.
    """

    dim: int
    score: float
    strength: float
    layers: tuple[int, ...]
    damage: float | None = None
    interval: tuple[float, float] | None = None
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ranking:
    """All dimensions, strongest first, and which of them meet the detector's criterion.

    ``evidence`` says in words which vectors were looked at, ``criterion`` what makes an outlier.
    """

    model: str
    architecture: str
    layers: int
    hidden_size: int
    method: str
    evidence: str
    criterion: str
    dimensions: tuple[Dimension, ...]
    outliers: tuple[int, ...]
    measured: Measured | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the document that ``scan --json`` prints."""
        return {
            "model": self.model,
            "architecture": self.architecture,
            "layers": self.layers,
            "hidden_size": self.hidden_size,
            "method": self.method,
            "evidence": self.evidence,
            "criterion": self.criterion,
            "outliers": list(self.outliers),
            "dimensions": [
                {"dim": d.dim, "score": d.score, "strength": d.strength, "layers": list(d.layers)}
                for d in self.dimensions
            ],
        }
