"""What a caller may set of any detector; each takes some of it."""

from __future__ import annotations

from dataclasses import dataclass

from surgeon.progress import Progress, silent
from surgeon.text import Texts

SIGMA = 3.0
MIN_DAMAGE = 0.05


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
        min_damage: the least damage that makes an outlier, in the unit of the model's own task.
            0.05 nats are 5% of perplexity, and a drift of 0.05 is a cosine of 0.95: below that, a
            removal may be told from chance by enough text, and still not be worth a name.
        exhaustive: whether every dimension is removed, instead of a shortlist.
        seed: of masks, controls and intervals.
        progress: told of each step.
    """

    sigma: float = SIGMA
    min_layers: float | None = None
    texts: Texts | None = None
    min_damage: float = MIN_DAMAGE
    exhaustive: bool = False
    seed: int = 0
    progress: Progress = silent
