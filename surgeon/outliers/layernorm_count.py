"""The follow-up's criterion: gain or bias far from their LayerNorm's mean, counted by kind."""

from __future__ import annotations

import numpy as np

from surgeon.checkpoint import Checkpoint
from surgeon.outliers.layernorm import check_sigma, distances, layers_needed
from surgeon.outliers.options import SIGMA
from surgeon.outliers.ranking import Dimension, Ranking
from surgeon.outliers.zscores import read_zscores


def rank_by_count(
    checkpoint: Checkpoint, *, sigma: float = SIGMA, min_layers: float | None = None
) -> Ranking:
    """Rank dimensions by the criterion of Puccetti et al. 2022 (arXiv 2205.11380, their code).

    A layer flags a dimension if its gain or its bias lies more than ``sigma`` standard deviations
    from the mean of that vector. The layers are counted for gains and for biases apart; the larger
    of the two counts, as a share of the layers, is the score, and the mean over layers of the
    larger distance the strength. Outliers are flagged in more than a quarter of the layers: more
    than 3 of 12, in the paper. What stands for the gain of a dense layer is said in
    ``layernorm.rank_by_layernorm``, as is what no criterion on the weights can see.

    Args:
        checkpoint: an open checkpoint of a known architecture.
        sigma: the distance, in standard deviations of the vector.
        min_layers: how many layers must flag an outlier: a share of them if below 1, else a
            count (None: more than a quarter).

    Raises:
        SelectionError: ``sigma`` or ``min_layers`` makes no sense for this model.
        CheckpointError: a vector holds values that are not finite.
    """
    layers = checkpoint.layers
    needed = layers_needed(layers // 4 + 1 if min_layers is None else min_layers, layers)
    check_sigma(sigma)
    zscores = read_zscores(checkpoint)
    gains = np.abs(zscores.gain) > sigma
    # A bias that is not there is NaN, which lies beyond nothing.
    biases = np.abs(zscores.bias) > sigma if zscores.bias is not None else np.zeros_like(gains)
    flags = gains | biases
    counts = np.maximum(gains.sum(axis=0), biases.sum(axis=0))
    strength = zscores.larger.mean(axis=0)
    order = np.lexsort((np.arange(counts.size), -strength, -counts))
    return Ranking(
        model=checkpoint.name,
        architecture=checkpoint.family.name,
        layers=layers,
        hidden_size=checkpoint.hidden_size,
        method="layernorm-count",
        evidence=zscores.evidence,
        criterion=f"either beyond {sigma:g}σ, in at least {needed} of {layers} layers",
        dimensions=tuple(
            Dimension(
                dim=int(dim),
                score=float(counts[dim] / layers),
                strength=float(strength[dim]),
                layers=tuple(map(int, np.flatnonzero(flags[:, dim]))),
            )
            for dim in order
        ),
        outliers=tuple(int(dim) for dim in order if counts[dim] >= needed),
        columns=("", "mean σ"),
        by_layer=distances(zscores, sigma, either=True),
    )
