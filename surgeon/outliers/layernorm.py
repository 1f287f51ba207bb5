"""The paper's criterion: gain and bias both far from their LayerNorm's mean, in enough layers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from surgeon.architectures import Kind, Site, Stack
from surgeon.checkpoint import Checkpoint
from surgeon.errors import CheckpointError, SelectionError
from surgeon.outliers.ranking import Dimension, Ranking

SIGMA = 3.0
MIN_LAYERS = 0.5

_SLAB = 2**20  # weights converted to float64 at a time

_LOOKED_AT: dict[Kind, tuple[str, str]] = {
    "layernorm": ("gain", "output LayerNorm"),
    "rmsnorm": ("gain", "output RMSNorm"),
    "dense": ("weight norm", "output dense layer"),
}


def rank_by_layernorm(
    checkpoint: Checkpoint, *, sigma: float = SIGMA, min_layers: float = MIN_LAYERS
) -> Ranking:
    """Rank dimensions by the criterion of Kovaleva et al. 2021.

    A layer flags a dimension if its gain and its bias each lie more than ``sigma`` standard
    deviations from the mean of that vector. The score is the share of layers that flag it, the
    strength the mean over layers of the smaller of the two distances. Where the last operation
    of a layer is a dense layer (GPT-2), the Euclidean norm of the dimension's weight slice
    stands for the gain; where it has no bias (RMSNorm), the gain alone decides. The layers of an
    encoder and its decoder are counted through, the encoder's first.

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
    both = "both " if any(site.bias is not None for site in sites) else ""
    checkpoint.prefetch(name for site in sites for name in (site.gain, site.bias) if name)
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
        evidence=_evidence(checkpoint, sites),
        criterion=f"{both}beyond {sigma:g}σ in at least {needed} of {len(sites)} layers",
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


def _evidence(checkpoint: Checkpoint, sites: list[Site]) -> str:
    """Say which vectors were looked at, in which of the model's stacks."""
    phrases: dict[str, list[Stack]] = {}
    for site in sites:
        vector, operation = _LOOKED_AT[site.kind]
        bias = " and bias" if site.bias is not None else ""
        stacks = phrases.setdefault(f"{vector}{bias} of the {operation}", [])
        if site.stack and site.stack not in stacks:
            stacks.append(site.stack)
    told = [
        f"{phrase} ({' and '.join(stacks)})" if stacks else phrase
        for phrase, stacks in phrases.items()
    ]
    return ", ".join(told + _left_out(checkpoint, {site.stack for site in sites}))


def _left_out(checkpoint: Checkpoint, used: set[Stack]) -> list[str]:
    if used == {""} or not checkpoint.family.templates:
        return []
    every = {site.stack for site in checkpoint.family.sites(checkpoint.tensors)}
    return [f"not {stack}, which has dimensions of its own" for stack in sorted(every - used)]


def _distance(checkpoint: Checkpoint, site: Site) -> npt.NDArray[np.float64]:
    """Return the smaller of the gain's and the bias's distance per dimension, shape (hidden,)."""
    gain = checkpoint.read(site.gain)
    size = _slice_norms(gain, site.axis) if gain.ndim == 2 else gain.astype(np.float64)
    distance = _sigmas(_finite(checkpoint, site.gain, size))
    if site.bias is None:
        return distance
    bias = checkpoint.read(site.bias).astype(np.float64)
    return np.minimum(distance, _sigmas(_finite(checkpoint, site.bias, bias)))


def _slice_norms(weight: npt.NDArray[Any], axis: int) -> npt.NDArray[np.float64]:
    """Return the Euclidean norm of each dimension's slice, without a float64 copy of the whole."""
    by_dim = np.moveaxis(weight, axis, 0)
    step = max(1, _SLAB // max(1, by_dim.shape[1]))
    slabs = (by_dim[start : start + step] for start in range(0, by_dim.shape[0], step))
    return np.concatenate([np.linalg.norm(slab.astype(np.float64), axis=1) for slab in slabs])


def _finite(
    checkpoint: Checkpoint, name: str, values: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    if not np.isfinite(values).all():
        raise CheckpointError(
            f"{checkpoint.where(name)}: tensor {name} holds values that are not finite"
        )
    return values


def _sigmas(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    spread = values.std()
    return np.abs(values - values.mean()) / spread if spread > 0 else np.zeros_like(values)
