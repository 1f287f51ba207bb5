"""The one result that every detector yields, and what a detector is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator, Field

from surgeon.model import Checkpoint
from surgeon.ranking.zscores import ZScores
from surgeon.settings import Count, Flag, Number, Seed, SettingsModel, as_list
from surgeon.text import TextsUsed

SIGMA = 3.0

BY_WEIGHTS = "by weights, not measured"
"""What is said of an outlier that only a look at the weights has found."""


@dataclass(frozen=True)
class Dimension:
    """One dimension's evidence.

    ``score`` orders the ranking together with ``strength``, which separates equal scores (both:
    larger is stronger; each detector says what they are). ``layers`` flag the dimension, and
    ``flags`` are the criteria of the literature that its activations meet.

    Where the dimension was removed and the model measured, ``damage`` is what its removal alone
    did on ``examples`` texts and ``interval`` where it lies (None: no ends are known); ``added``
    and ``added_interval`` are what its removal did on top of the dimensions ranked before it. The
    unit is the measurement's. It took part in ``removals``, alone and beside others.
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
    removals: int = 0


@dataclass(frozen=True)
class Measured:
    """How damages were measured, and what they are held against.

    ``metric`` in ``unit`` is the score of ``task``, ``baseline`` its value for the model as it is,
    on ``examples`` of the texts. ``control_range`` is where the removal of one random dimension
    lies (None: it has no ends, or none ran, since no dimension did as much as counts), and
    ``min_damage`` the least effect that counts. All intervals of the dimensions hold at once
    but for a chance of ``error``. It took as long as ``passes`` of the model over all texts, of
    the model as it is and in ``removals``.
    """

    task: str
    metric: str
    unit: str
    texts: str
    sha256: str
    examples: int
    baseline: float
    control_range: tuple[float, float] | None
    min_damage: float
    error: float
    removals: int
    passes: float


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


@dataclass(frozen=True, repr=False)
class Ranking:
    """All dimensions, strongest first, and which of them meet the detector's criterion.

    ``evidence`` says in words which vectors were looked at, ``criterion`` what makes an outlier.
    ``measured`` is how damages were measured, ``weak`` why the evidence is weak where it is, and
    ``warnings`` what else a person should know. ``columns`` name the score and the strength for
    people ("": not worth a column). ``text`` is what a forward pass read, and ``by_layer`` what
    the layers that flag a dimension judged by, ``zscores`` what a look at the weights read.
    """

    model: str
    architecture: str
    layers: int
    hidden_size: int
    method: str
    evidence: str
    criterion: str
    outliers: tuple[int, ...]
    measured: Measured | None = None
    weak: str | None = None
    warnings: tuple[str, ...] = ()
    dimensions: tuple[Dimension, ...] = ()
    columns: tuple[str, str] = ("", "strength")
    text: TextsUsed | None = None
    by_layer: ByLayer | None = field(default=None, compare=False, repr=False)
    zscores: ZScores | None = field(default=None, compare=False, repr=False)

    def __repr__(self) -> str:
        found = ", ".join(map(str, self.outliers)) or "none"
        return f"<Ranking of {self.model} by {self.method}: outliers {found}>"

    def to_frame(self) -> Any:
        """Return a pandas ``DataFrame``, which must be installed, of the dimensions in order."""
        import pandas as pd

        return pd.DataFrame(map(asdict, self.dimensions)).set_index("dim")

    def _repr_html_(self) -> str | None:
        return self.to_frame()._repr_html_() if find_spec("pandas") else None

    @property
    def basis(self) -> str:
        """What makes an outlier of a dimension: damage that was measured, or a look."""
        if self.measured:
            return "measured"
        return BY_WEIGHTS if self.text is None else f"by {self.method}, not measured"

    def to_json(self) -> dict[str, Any]:
        """Return the document that ``scan --json`` prints."""
        document = asdict(replace(self, by_layer=None, zscores=None)) | {"basis": self.basis}
        for name in ("columns", "text", "by_layer", "zscores"):
            del document[name]
        return document


def make_ranking(
    checkpoint: Checkpoint,
    *,
    flags: npt.NDArray[np.bool_],
    counts: npt.NDArray[np.int64],
    needed: int,
    score: npt.NDArray[np.float64],
    strength: npt.NDArray[np.float64],
    met: Mapping[str, npt.NDArray[np.bool_]] | None = None,
    **described: Any,
) -> Ranking:
    """Rank dimensions by arrays of shape (hidden,), the largest score first, then strength.

    Args:
        checkpoint: the model.
        flags: which layers flag which dimensions, (layers, hidden).
        counts: how many layers count for a dimension.
        needed: how many make it an outlier.
        score: of ``Dimension``.
        strength: of ``Dimension``.
        met: which dimensions meet each criterion of the literature.
        described: the other fields of ``Ranking``.
    """
    order = np.lexsort((-strength, -score)).tolist()
    return Ranking(
        model=checkpoint.name,
        architecture=checkpoint.family.name,
        layers=len(flags),
        hidden_size=checkpoint.hidden_size,
        outliers=tuple(dim for dim in order if counts[dim] >= needed),
        dimensions=tuple(
            Dimension(
                dim=dim,
                score=float(score[dim]),
                strength=float(strength[dim]),
                layers=tuple(flags[:, dim].nonzero()[0].tolist()),
                flags=tuple(name for name, dims in (met or {}).items() if dims[dim]),
            )
            for dim in order
        ),
        **described,
    )


def over_median(sizes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return sizes of shape (layers, hidden) as multiples of each layer's median dimension's."""
    median = np.median(sizes, axis=1, keepdims=True)
    return np.divide(sizes, median, out=np.zeros_like(sizes), where=median > 0)


class Options(SettingsModel):
    """The settings of a ranking."""

    sigma: Number = SIGMA
    """How far from the mean of its vector a gain or a bias is flagged, in standard deviations."""
    min_layers: Number | None = None
    """How many layers must flag an outlier: a share of them if below 1, else a count (None: the
    detector's own rule)."""
    texts: Annotated[Any, BeforeValidator(as_list)] = None
    """What a forward pass reads: texts, strings, or a file with one text per line (None: the
    built-in sample that ranks, which is not the one that evaluates)."""
    min_damage: Annotated[Number, Field(ge=0)] | None = None
    """The least damage that makes an outlier, in the unit of the model's own task (None: that of
    ``removals.MIN_DAMAGE``)."""
    exhaustive: Flag = False
    """Whether every dimension is removed, instead of a shortlist."""
    count: Count | None = None
    """How many outliers ``ablation`` is to find (None: all, but 8 at most)."""
    device: Annotated[str, BeforeValidator(str)] = "auto"
    """Where PyTorch runs the model: cpu, cuda, mps, or auto, the best that is there."""
    seed: Seed = 0
    """Of masks, controls and the order of the texts."""
