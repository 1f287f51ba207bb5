"""The paper's criterion: gain and bias both far from their LayerNorm's mean, in enough layers."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from surgeon.architectures import Site
from surgeon.checkpoint import Checkpoint
from surgeon.errors import CheckpointError, SelectionError
from surgeon.outliers.ranking import Dimension, Ranking

SIGMA = 3.0
MIN_LAYERS = 0.5

_EVIDENCE = {
    "layernorm": "gain and bias of the output LayerNorm",
    "dense": "column norm and bias of the output dense layer",
}


def rank_by_layernorm(
    checkpoint: Checkpoint, *, sigma: float = SIGMA, min_layers: float = MIN_LAYERS
) -> Ranking:
    """Rank dimensions by the criterion of Kovaleva et al. 2021.

    A layer flags a dimension if its gain and its bias each lie more than ``sigma`` standard
    deviations from the mean of that vector. The score is the share of layers that flag it, the
    strength the mean over layers of the smaller of the two distances. Where the last operation
    of a layer is a dense layer (GPT-2), the Euclidean norm of the dimension's weight slice
    stands for the gain.

    Args:
        checkpoint: an open checkpoint of a known architecture.
        sigma: the distance, in standard deviations of the vector.
        min_layers: how many layers must flag an outlier: a share of them if below 1, else a
            count.

    Raises:
        SelectionError: ``sigma`` or ``min_layers`` makes no sense for this model.
        CheckpointError: a vector holds values that are not finite.
    """
    sites = [site for site in checkpoint.sites if site.role == "output"]
    needed = _layers_needed(min_layers, len(sites))
    if not (math.isfinite(sigma) and sigma > 0):
        raise SelectionError(f"--sigma {sigma}: give a positive number of standard deviations")
    distance = np.stack([_distance(checkpoint, site) for site in sites])
    flags = distance > sigma
    counts = flags.sum(axis=0)
    strength = distance.mean(axis=0)
    order = np.lexsort((np.arange(counts.size), -strength, -counts))
    return Ranking(
        model=checkpoint.name,
        architecture=checkpoint.family.name,
        layers=len(sites),
        hidden_size=checkpoint.hidden_size,
        method="layernorm",
        evidence=_EVIDENCE[sites[0].kind],
        criterion=f"both beyond {sigma:g}σ in at least {needed} of {len(sites)} layers",
        dimensions=tuple(
            Dimension(
                dim=int(dim),
                score=float(counts[dim] / len(sites)),
                strength=float(strength[dim]),
                layers=tuple(int(layer) for layer in np.flatnonzero(flags[:, dim])),
            )
            for dim in order
        ),
        outliers=tuple(int(dim) for dim in order if counts[dim] >= needed),
    )


def _layers_needed(min_layers: float, layers: int) -> int:
    needed = math.ceil(min_layers * layers) if min_layers < 1 else min_layers
    if not (math.isfinite(min_layers) and 1 <= needed <= layers and needed == int(needed)):
        raise SelectionError(
            f"--min-layers {min_layers:g}: give a count from 1 to {layers}, or a share of the "
            "layers below 1, such as 0.5"
        )
    return int(needed)


def _distance(checkpoint: Checkpoint, site: Site) -> npt.NDArray[np.float64]:
    """Return the smaller of the gain's and the bias's distance per dimension, shape (hidden,)."""
    gain = _finite(checkpoint, site.gain)
    if gain.ndim == 2:
        gain = np.linalg.norm(gain, axis=1 - site.axis)
    if site.bias is None:
        return _sigmas(gain)
    return np.minimum(_sigmas(gain), _sigmas(_finite(checkpoint, site.bias)))


def _finite(checkpoint: Checkpoint, name: str) -> npt.NDArray[np.float64]:
    values = checkpoint.read(name).astype(np.float64)
    if not np.isfinite(values).all():
        raise CheckpointError(
            f"{checkpoint.homes[name].path}: tensor {name} holds values that are not finite"
        )
    return values


def _sigmas(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    spread = values.std()
    return np.abs(values - values.mean()) / spread if spread > 0 else np.zeros_like(values)
