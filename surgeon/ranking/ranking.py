"""The one result that every detector yields, and what a detector is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from surgeon.model import Checkpoint
from surgeon.progress import Progress, silent
from surgeon.text import Texts, TextsUsed

SIGMA = 3.0


@dataclass(frozen=True)
class Dimension:
    """One dimension's evidence.

    ``score`` orders the ranking together with ``strength``, which separates equal scores (both:
    larger is stronger; each detector says what they are). ``layers`` flag the dimension, and
    ``flags`` are the criteria of the literature that its activations meet.

    Where the dimension was removed and the model measured, ``damage`` is what its removal alone
    did on ``examples`` texts and ``interval`` its paired 95% interval; ``added`` and
    ``added_interval`` are what its removal did on top of the dimensions ranked before it. The
    unit is the measurement's.
    """

    dim: int
    score: float
    strength: float
    layers: tuple[int, ...]
    flags: tuple[str, ...] = ()
    damage: float | None = None
    interval: tuple[float, float] | None = None
    examples: int | None = None
    added: float | None = None
    added_interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Measured:
    """How damages were measured, and what they are held against.

    ``metric`` in ``unit`` is the score of ``task``, ``baseline`` its value for the model as it is,
    on ``examples`` of the texts. ``control_range`` is where the removal of one random dimension
    lies, ``min_damage`` the least effect that counts.
    """

    task: str
    metric: str
    unit: str
    texts: str
    sha256: str
    examples: int
    baseline: float
    control_range: tuple[float, float]
    min_damage: float


@dataclass(frozen=True, eq=False)
class ByLayer:
    """What a detector judges by, layer by layer.

    ``values`` of shape (layers, hidden) flag a dimension beyond the ``threshold``, in ``unit``
    ("σ", "×"). ``title`` and ``meaning`` say what they are; ``ratios`` that they are multiples.
    """

    values: npt.NDArray[np.float64]
    threshold: float
    unit: str
    title: str
    meaning: str
    ratios: bool = False


@dataclass(frozen=True)
class Ranking:
    """All dimensions, strongest first, and which of them meet the detector's criterion.

    ``evidence`` says in words which vectors were looked at, ``criterion`` what makes an outlier.
    ``columns`` name the score and the strength for people ("": not worth a column). ``text`` is
    what a forward pass read, ``measured`` how damages were measured, ``weak`` why the evidence is
    weak where it is, and ``warnings`` what else a person should know. ``by_layer`` is what the
    layers that flag a dimension judged by.
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
    columns: tuple[str, str] = ("", "strength")
    text: TextsUsed | None = None
    measured: Measured | None = None
    weak: str | None = None
    warnings: tuple[str, ...] = ()
    by_layer: ByLayer | None = field(default=None, compare=False, repr=False)

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
            "measured": asdict(self.measured) if self.measured else None,
            "weak": self.weak,
            "warnings": list(self.warnings),
            "dimensions": [asdict(dimension) for dimension in self.dimensions],
        }


@dataclass(frozen=True)
class Options:
    """The settings of a ranking.

    Attributes:
        sigma: how far from the mean of its vector a gain or a bias is flagged, in standard
            deviations.
        min_layers: how many layers must flag an outlier: a share of them if below 1, else a count
            (None: the detector's own rule).
        texts: what a forward pass reads, one text per line (None: the built-in sample that ranks,
            which is not the one that evaluates).
        min_damage: the least damage that makes an outlier, in the unit of the model's own task
            (None: that of ``ablation.MIN_DAMAGE``).
        exhaustive: whether every dimension is removed, instead of a shortlist.
        seed: of masks, controls and intervals.
        progress: called with each step.
    """

    sigma: float = SIGMA
    min_layers: float | None = None
    texts: Texts | None = None
    min_damage: float | None = None
    exhaustive: bool = False
    seed: int = 0
    progress: Progress = silent


@dataclass(frozen=True)
class Detector:
    """A way to rank dimensions.

    ``needs_model`` is whether it runs the model in PyTorch, on text; the others read a few
    tensors of the weights. ``takes`` are the options that it uses.
    """

    name: str
    rank: Callable[[Checkpoint, Options], Ranking]
    needs_model: bool
    summary: str
    source: str
    takes: tuple[str, ...]
