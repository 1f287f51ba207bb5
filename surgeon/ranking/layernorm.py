"""The criteria on the weights: gain and bias far from their vector's mean, in enough layers."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from surgeon.errors import SelectionError
from surgeon.model import Checkpoint
from surgeon.ranking.ranking import SIGMA, ByLayer, Ranking, make_ranking
from surgeon.ranking.zscores import ZScores, read_zscores

MIN_LAYERS = 0.5


def rank_by_layernorm(
    checkpoint: Checkpoint, *, sigma: float = SIGMA, min_layers: float | None = None
) -> Ranking:
    """Rank dimensions by the criterion of Kovaleva et al. 2021.

    A layer flags a dimension if its gain and its bias each lie more than ``sigma`` standard
    deviations from the mean of that vector. The score is the share of layers that flag it, the
    strength the mean over layers of the smaller of the two distances. Where the last operation
    of a layer is a dense layer (GPT-2), the Euclidean norm of the dimension's weight slice
    stands for the gain; where it has no bias (RMSNorm), the gain alone decides. The layers of an
    encoder and its decoder are counted through, the encoder's first.

    It reads what a norm multiplies by, not what comes in or who reads what goes out: a dimension
    that matters by its size in the stream, with a gain like any other, it cannot see.

    Args:
        checkpoint: an open checkpoint of a known architecture.
        sigma: the distance, in standard deviations of the vector.
        min_layers: how many layers must flag an outlier: a share of them if below 1, else a
            count (None: half of them).

    Raises:
        SelectionError: ``sigma`` or ``min_layers`` makes no sense for this model.
        CheckpointError: a vector holds values that are not finite.
    """
    # Refused before anything is read.
    needed = layers_needed(MIN_LAYERS if min_layers is None else min_layers, checkpoint.layers)
    check_sigma(sigma)
    zscores = read_zscores(checkpoint)
    return _rank(
        checkpoint,
        zscores,
        distances(zscores, sigma),
        needed=needed,
        method="layernorm",
        criterion=criterion(zscores, sigma, needed),
    )


def rank_by_count(
    checkpoint: Checkpoint, *, sigma: float = SIGMA, min_layers: float | None = None
) -> Ranking:
    """Rank dimensions by the criterion of Puccetti et al. 2022 (arXiv 2205.11380, their code).

    A layer flags a dimension if its gain or its bias lies more than ``sigma`` standard deviations
    from the mean of that vector. The layers are counted for gains and for biases apart; the larger
    of the two counts, as a share of the layers, is the score, and the mean over layers of the
    larger distance the strength. Outliers are flagged in more than a quarter of the layers: more
    than 3 of 12, in the paper. What stands for the gain of a dense layer is said in
    ``rank_by_layernorm``, as is what no criterion on the weights can see.

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
    return _rank(
        checkpoint,
        zscores,
        distances(zscores, sigma, "larger"),
        counts=np.maximum(gains.sum(axis=0), biases.sum(axis=0)),
        needed=needed,
        method="layernorm-count",
        criterion=criterion(zscores, sigma, needed, "either, counted apart, "),
    )


def _rank(
    checkpoint: Checkpoint,
    zscores: ZScores,
    by_layer: ByLayer,
    counts: npt.NDArray[np.int64] | None = None,
    **described: Any,
) -> Ranking:
    flags = by_layer.values > by_layer.threshold
    counts = flags.sum(axis=0) if counts is None else counts
    return make_ranking(
        checkpoint,
        flags=flags,
        counts=counts,
        score=counts / len(flags),
        strength=by_layer.values.mean(axis=0),
        evidence=zscores.evidence,
        columns=("", "mean |z|"),
        by_layer=by_layer,
        zscores=zscores,
        **described,
    )


def distances(
    zscores: ZScores, sigma: float, which: Literal["smaller", "larger"] = "smaller"
) -> ByLayer:
    """Return what to judge by: the smaller or the larger of both distances."""
    of_both = f"the {which} of {zscores.gain_name} and bias"
    return ByLayer(
        values=getattr(zscores, which),
        threshold=sigma,
        unit="σ",
        title="Distance from the mean, by layer",
        meaning=f"|z-score|, {zscores.gain_name if zscores.bias is None else of_both}",
    )


def criterion(zscores: ZScores, sigma: float, needed: int, which: str = "both ") -> str:
    """Say what makes an outlier, for these vectors, ``which`` of them where there are two."""
    which = "" if zscores.bias is None else which
    return f"{which}beyond {sigma:g}σ in at least {needed} of {len(zscores.rows)} layers"


def check_sigma(sigma: float) -> None:
    """Refuse a distance that is not a positive number.

    Raises:
        SelectionError: it is not.
    """
    if not (math.isfinite(sigma) and sigma > 0):
        raise SelectionError(f"`sigma` {sigma}: give a positive number of standard deviations")


def layers_needed(min_layers: float, layers: int) -> int:
    """Return how many of the layers must flag an outlier.

    Raises:
        SelectionError: it is neither a count of them nor a share below 1.
    """
    needed = math.ceil(min_layers * layers) if 0 < min_layers < 1 else min_layers
    if not (1 <= needed <= layers and needed == int(needed)):
        raise SelectionError(
            f"`min_layers` {min_layers:g}: give a count from 1 to {layers}, or a share of the "
            "layers below 1, such as 0.5"
        )
    return int(needed)
