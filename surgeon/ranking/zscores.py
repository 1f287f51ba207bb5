"""Gain and bias of each layer's output site as z-scores: what the weights alone show."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from surgeon.errors import CheckpointError
from surgeon.families import Kind, Site, Stack, by_layer
from surgeon.model import Checkpoint

_DIGITS = 4  # behind the point, in JSON
_SLAB = 2**17  # weights converted to float64 at a time: they fit in a core's cache
# Bytes of a remote model that are fetched together: all norms of any model, all output dense layers
# of GPT-2, three of Llama 13B's.
_AT_ONCE = 2**29
_FP4 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0) * 2  # by code, of both signs
_FP4_NORMS = np.hypot.outer(_FP4, _FP4).ravel()  # of the two weights in a byte

_LOOKED_AT: dict[Kind, tuple[str, str]] = {
    "layernorm": ("gain", "output LayerNorm"),
    "rmsnorm": ("gain", "output RMSNorm"),
    "dense": ("weight norm", "output dense layer"),
}
_Vector: TypeAlias = npt.NDArray[np.float64]
_SHORT: dict[Stack, str] = {"encoder": "enc", "decoder": "dec"}


@dataclass(frozen=True)
class ZScores:
    """Signed distances from the mean of each vector, in its standard deviations.

    ``gain`` and ``bias`` have shape (layers, hidden). ``bias`` is None where no layer has one, and
    a row of NaN where a single layer has none. ``rows`` labels the layers, those of an encoder
    before its decoder's: "0", or "enc 3" and "dec 0" in a model of two stacks. ``gain_name``
    is "weight norm" where the Euclidean norm of a dense layer's slice stands for the gain, and
    ``evidence`` says in words which vectors these are.
    """

    rows: tuple[str, ...]
    gain: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64] | None
    gain_name: str
    evidence: str

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values: a list of each layer's, None for a bias that is not there."""
        gain, bias = (
            None
            if values is None
            else [
                None if np.isnan(row).any() else np.round(row, _DIGITS).tolist() for row in values
            ]
            for values in (self.gain, self.bias)
        )
        return {"rows": self.rows, "gain_name": self.gain_name, "gain": gain, "bias": bias}

    @property
    def smaller(self) -> _Vector:
        """The smaller of the two distances, or the gain's where there is no bias; unsigned."""
        gain = np.abs(self.gain)
        return gain if self.bias is None else np.fmin(gain, np.abs(self.bias))

    @property
    def larger(self) -> _Vector:
        """The larger of the two distances, or the gain's where there is no bias; unsigned."""
        gain = np.abs(self.gain)
        return gain if self.bias is None else np.fmax(gain, np.abs(self.bias))


def read_zscores(checkpoint: Checkpoint) -> ZScores:
    """Read the gain and bias of every layer's output site in a checkpoint.

    Where the last operation of a layer is a dense layer (GPT-2), the Euclidean norm of the
    dimension's weight slice stands for the gain: of the slices of all experts, where a layer has
    several, and the mean of their biases for the bias. Equal values are all at distance 0.

    Raises:
        CheckpointError: a vector holds values that are not finite.
    """
    layers = by_layer(checkpoint.sites)
    sites = [site for layer in layers for site in layer]
    read = _read(checkpoint, sites)
    gains, biases = [], []
    for layer in layers:
        vectors = [next(read) for _ in layer]
        gains.append(_standardized(functools.reduce(np.hypot, (gain for gain, _ in vectors))))
        present = [row for _, bias in vectors if bias is not None for row in np.atleast_2d(bias)]
        missing = np.full(checkpoint.hidden_size, np.nan)
        biases.append(_standardized(np.mean(present, axis=0)) if present else missing)
    names = {_LOOKED_AT[site.kind][0] for site in sites}
    return ZScores(
        rows=_labels([layer[0] for layer in layers]),
        gain=np.stack(gains),
        bias=np.stack(biases) if any(site.bias is not None for site in sites) else None,
        gain_name=names.pop() if len(names) == 1 else "gain",
        evidence=_evidence(checkpoint, sites),
    )


def _read(checkpoint: Checkpoint, sites: list[Site]) -> Iterator[tuple[_Vector, _Vector | None]]:
    """Yield the gain and bias of each site, (hidden,), with no more than a batch in memory."""
    for batch in _batches(checkpoint, sites):
        checkpoint.prefetch(name for site in batch for name in _tensors(checkpoint, site))
        for site in batch:
            bias = None if site.bias is None else _read_vector(checkpoint, site.bias)
            yield _read_vector(checkpoint, site.gain, site.axis), bias


def _batches(checkpoint: Checkpoint, sites: list[Site]) -> Iterator[list[Site]]:
    """Yield as many sites together as a budget of bytes holds, one at least."""
    batch: list[Site] = []
    held = 0
    for site in sites:
        infos = (checkpoint.tensors[name] for name in _tensors(checkpoint, site))
        size = sum(info.end - info.start for info in infos)
        if batch and held + size > _AT_ONCE:
            yield batch
            batch, held = [], 0
        batch.append(site)
        held += size
    yield batch


def _tensors(checkpoint: Checkpoint, site: Site) -> list[str]:
    return [n for n in (site.gain, site.bias, *checkpoint.scales_of(site.gain)) if n]


def _read_vector(checkpoint: Checkpoint, name: str, axis: int | None = None) -> _Vector:
    """Read a vector or one of each expert, or, given the axis, the norms of a matrix's slices."""
    stored = checkpoint.read(name).reshape(checkpoint.unpacked[name])
    if axis is not None and stored.ndim > 1:
        values = slice_norms(stored, axis, checkpoint.read_scales(name))
    else:
        values = stored.astype(np.float64)
    if not np.isfinite(values).all():
        raise CheckpointError(
            f"{checkpoint.where(name)}: tensor {name} holds values that are not finite"
        )
    return values


def slice_norms(
    weight: npt.NDArray[Any], axis: int, scales: npt.NDArray[np.float64] | None = None
) -> _Vector:
    """Return the Euclidean norm of each dimension's slice, without a float64 copy of the whole.

    ``weight`` is a matrix, or one of each expert; of bytes, those of two FP4 weights. ``scales``
    are those of its blocks, whose sides are powers of two; the last block of a row or column may be
    cut off.
    """
    if weight.ndim > 2:
        each = itertools.zip_longest(weight, () if scales is None else scales)
        norms = (slice_norms(one, axis - 1, of) for one, of in each)
        return functools.reduce(np.hypot, norms, np.zeros(weight.shape[axis]))
    squares = np.zeros(weight.shape[axis])
    if scales is not None:
        rows, columns = map(_block_of, weight.shape, scales.shape)
    step = max(1, _SLAB // max(1, weight.shape[1]))
    for start in range(0, len(weight), step):
        slab = weight[start : start + step]
        slab = _FP4_NORMS[slab] if slab.dtype == np.uint8 else slab.astype(np.float64)
        if scales is not None:
            slab *= scales[np.ix_(rows[start : start + step], columns)]
        np.multiply(slab, slab, out=slab)
        if axis == 0:
            squares[start : start + step] = slab.sum(axis=1)
        else:
            squares += slab.sum(axis=0)
    return np.sqrt(squares)


def _block_of(size: int, count: int) -> npt.NDArray[np.intp]:
    """Return the number of the block that each row lies in, given how many blocks there are."""
    block = 1 << math.ceil(math.log2(size / count))
    numbers: npt.NDArray[np.intp] = np.arange(size) // block
    return numbers


def _standardized(values: _Vector) -> _Vector:
    with np.errstate(over="ignore", invalid="ignore"):
        spread = values.std()
    if not np.isfinite(spread):  # the squares of float64 values may be too large for one
        values = values / np.abs(values).max()
        spread = values.std()
    return (values - values.mean()) / spread if spread > 0 else np.zeros_like(values)


def _labels(sites: list[Site]) -> tuple[str, ...]:
    if len({site.stack for site in sites}) == 1:
        return tuple(str(row) for row, _ in enumerate(sites))
    return tuple(f"{_SHORT.get(site.stack, site.stack)} {site.layer}" for site in sites)


def _evidence(checkpoint: Checkpoint, sites: list[Site]) -> str:
    """Say which vectors were looked at, in which of the model's stacks, and in which not."""
    stacks: dict[str, dict[Stack, None]] = {}
    for site in sites:
        vector, operation = _LOOKED_AT[site.kind]
        bias = " and bias" if site.bias is not None else ""
        stacks.setdefault(f"{vector}{bias} of the {operation}", {})[site.stack] = None
    phrases = [
        f"{phrase} ({' and '.join(named)})" if (named := list(filter(None, used))) else phrase
        for phrase, used in stacks.items()
    ]
    looked_at = {site.stack for site in sites}
    if looked_at != {""} and checkpoint.family.templates:
        every = {site.stack for site in checkpoint.family.sites(checkpoint.tensors)}
        left_out = sorted(every - looked_at)
        phrases += [f"not {stack}, which has dimensions of its own" for stack in left_out]
    return ", ".join(phrases)
