"""What a caller may set of any detector; each takes some of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from surgeon.progress import Progress, silent
from surgeon.text import Texts

SIGMA = 3.0

MIN_DAMAGE: Mapping[str, float] = {
    **dict.fromkeys(("mlm", "clm", "rtd", "plm", "denoising"), 0.1),
    "drift": 0.05,
}
"""The least damage that makes an outlier, by task.

Enough text tells any removal from chance; it takes more to be worth a name. 0.1 nats are a tenth of
the perplexity. The weakest dimension that Kovaleva et al. 2021 call an outlier, 381 of BERT-base,
does 0.15 by their figure; the strongest of two models that have none do 0.01 on text in the form
that they were trained on, and 0.07 (IgLM-S) on text that opens with a token of another form. For
the losses of ELECTRA, XLNet and BART the same is a convention: no figure is known. A drift of
0.05 is a cosine of 0.95.
"""


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
            (None: that of ``MIN_DAMAGE``).
        exhaustive: whether every dimension is removed, instead of a shortlist.
        seed: of masks, controls and intervals.
        progress: told of each step.
    """

    sigma: float = SIGMA
    min_layers: float | None = None
    texts: Texts | None = None
    min_damage: float | None = None
    exhaustive: bool = False
    seed: int = 0
    progress: Progress = silent
