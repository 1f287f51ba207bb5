"""The literature's criteria for outlier activations, on statistics of constant size per layer.

They are about the hidden states that leave each layer.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from surgeon.errors import CheckpointError
from surgeon.families import (
    Kind,
    Site,
    Stack,
    by_layer,
)
from surgeon.model import Checkpoint

Bools = npt.NDArray[np.bool_]

_ROUNDING = 1e-10  # of the mean square: a hundred-thousandth of the size, squared
_PER_OCTAVE = 8  # bins of the histogram of magnitudes: a median is known to 9%
_LOWEST, _HIGHEST = -12, 16  # octaves; what lies beyond is counted at the ends
_BINS = (_HIGHEST - _LOWEST) * _PER_OCTAVE


class LayerStates:
    """Statistics of one layer's hidden states, updated batch by batch.

    All arrays have shape (hidden,), but for ``magnitudes``, a histogram of |x| for each dimension
    in logarithmic bins, (hidden, bins), kept of the ``last`` layer alone, as its ``directions``.
    """

    def __init__(self, hidden: int, *, last: bool) -> None:
        self.last = last
        self.tokens = 0
        self.total = np.zeros(hidden)
        self.squares = np.zeros(hidden)
        self.directions = np.zeros(hidden)
        self.above_six = np.zeros(hidden, dtype=np.int64)
        self.massive = np.zeros(hidden, dtype=np.int64)
        self.extreme = np.zeros(hidden, dtype=np.int64)
        self.magnitudes = np.zeros((hidden, _BINS), dtype=np.int64)

    def add(self, states: npt.NDArray[np.float32]) -> None:
        """Take in the states of some tokens, (tokens, hidden)."""
        hidden = states.shape[1]
        exact, size = states.astype(np.float64), np.abs(states)
        self.tokens += len(states)
        self.total += exact.sum(axis=0)
        self.squares += np.square(exact).sum(axis=0)
        self.above_six += (size >= 6).sum(axis=0)
        huge = size[(size > 100).any(axis=1)]
        median = np.median(huge, axis=1, keepdims=True)
        self.massive += ((huge > 100) & (huge >= 1000 * median)).sum(axis=0)
        for extreme in (states.argmax(axis=1), states.argmin(axis=1)):
            self.extreme += np.bincount(extreme, minlength=hidden)
        if self.last:
            lengths = np.linalg.norm(exact, axis=1, keepdims=True)
            self.directions += np.divide(exact, lengths, where=lengths > 0, out=exact).sum(axis=0)
            self._count_magnitudes(size)

    def _count_magnitudes(self, size: npt.NDArray[np.float32]) -> None:
        hidden = size.shape[1]
        tiny = 2.0**_LOWEST
        bins = ((np.log2(np.maximum(size, tiny)) - _LOWEST) * _PER_OCTAVE).astype(np.int64)
        flat = np.minimum(bins, _BINS - 1) + np.arange(hidden) * _BINS
        counts = np.bincount(flat.ravel(), minlength=hidden * _BINS)
        self.magnitudes += counts.reshape(hidden, _BINS)

    @property
    def variance(self) -> npt.NDArray[np.float64]:
        """The variance of each dimension over the tokens."""
        mean, square = self.total / self.tokens, self.squares / self.tokens
        variance: npt.NDArray[np.float64] = square - np.square(mean)
        # A constant in float32 seems to vary by its rounding.
        return np.where(variance > _ROUNDING * square, variance, 0.0)


@dataclass(frozen=True)
class Criterion:
    """A rule of the literature: which dimensions meet it, given the statistics of every layer."""

    met: Callable[[Sequence[LayerStates]], Bools]
    rule: str
    source: str


def _int8(layers: Sequence[LayerStates]) -> Bools:
    often = np.array([layer.above_six >= 0.06 * layer.tokens for layer in layers])
    met: Bools = often.mean(axis=0) >= 0.25
    return met


def _massive(layers: Sequence[LayerStates]) -> Bools:
    times: npt.NDArray[np.int64] = np.sum([layer.massive for layer in layers], axis=0)
    return times > 0


def _variance(layers: Sequence[LayerStates]) -> Bools:
    variance = layers[-1].variance
    met: Bools = variance >= 5 * max(variance.mean(), np.finfo(np.float64).tiny)
    return met


def _median_over_quantile(layers: Sequence[LayerStates]) -> Bools:
    counts = layers[-1].magnitudes
    median: npt.NDArray[np.intp] = (counts.cumsum(axis=1) >= layers[-1].tokens / 2).argmax(axis=1)
    every = counts.sum(axis=0).cumsum()
    met: Bools = np.greater(median, int((every >= 0.99 * every[-1]).argmax()))
    return met


def _most_extreme(layers: Sequence[LayerStates]) -> Bools:
    shares = np.array([layer.extreme / layer.tokens for layer in layers])
    met: Bools = shares.mean(axis=0) >= 0.5
    return met


def _cosine(layers: Sequence[LayerStates]) -> Bools:
    # The mean over all pairs of tokens of x_d y_d / (|x||y|) is the square of the mean direction.
    contribution = np.square(layers[-1].directions)
    met: Bools = contribution >= 0.1 * max(contribution.sum(), np.finfo(np.float64).tiny)
    return met


CRITERIA: dict[str, Criterion] = {
    "int8": Criterion(
        _int8,
        "|x| of 6 or more for at least 6% of the tokens, in at least a quarter of the layers",
        "Dettmers et al. 2022, arXiv 2208.07339",
    ),
    "massive": Criterion(
        _massive,
        "|x| above 100 and at least 1000 times the median of its token, once",
        "Sun et al. 2024, arXiv 2402.17762",
    ),
    "variance": Criterion(
        _variance,
        "a variance of at least 5 times the mean variance of the last layer",
        "Rudman et al. 2023, arXiv 2310.17715",
    ),
    "median": Criterion(
        _median_over_quantile,
        "median |x| above the 99th percentile of all |x| of the last layer",
        "Macocco et al. 2025, arXiv 2503.21718",
    ),
    "argmax": Criterion(
        _most_extreme,
        "the largest or smallest entry of half of the tokens (the share is ours)",
        "Luo et al. 2021, arXiv 2011.04393",
    ),
    "cosine": Criterion(
        _cosine,
        "a tenth of the mean cosine of two tokens of the last layer (the share is ours)",
        "Timkey and van Schijndel 2021, arXiv 2109.04404",
    ),
}
"""Criteria by the name that a flag has."""


_SLAB = 2**20  # weights converted to float64 at a time
# Bytes of a remote model that are fetched together: all norms of any model, all output dense layers
# of GPT-2, three of Llama 13B's.
_AT_ONCE = 2**29

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
        gains.append(_sigmas(_together(gain for gain, _ in vectors)))
        present = [bias for _, bias in vectors if bias is not None]
        biases.append(
            _sigmas(np.mean(present, axis=0))
            if present
            else np.full(checkpoint.hidden_size, np.nan)
        )
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
        checkpoint.prefetch(name for site in batch for name in _tensors(site))
        for site in batch:
            yield _gain(checkpoint, site), _bias(checkpoint, site)


def _together(gains: Iterable[_Vector]) -> _Vector:
    """Return the gain of one site, or the Euclidean norm over the experts' slices."""
    return functools.reduce(np.hypot, gains)


def _tensors(site: Site) -> tuple[str, ...]:
    return tuple(filter(None, (site.gain, site.bias)))


def _batches(checkpoint: Checkpoint, sites: list[Site]) -> Iterator[list[Site]]:
    """Yield as many sites together as a budget of bytes holds, one at least."""
    batch: list[Site] = []
    held = 0
    for site in sites:
        infos = (checkpoint.tensors[name] for name in _tensors(site))
        size = sum(info.end - info.start for info in infos)
        if batch and held + size > _AT_ONCE:
            yield batch
            batch, held = [], 0
        batch.append(site)
        held += size
    yield batch


def _labels(sites: list[Site]) -> tuple[str, ...]:
    if len({site.stack for site in sites}) == 1:
        return tuple(str(row) for row, _ in enumerate(sites))
    return tuple(f"{_SHORT.get(site.stack, site.stack)} {site.layer}" for site in sites)


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


def _gain(checkpoint: Checkpoint, site: Site) -> _Vector:
    gain = checkpoint.read(site.gain)
    size = _slice_norms(gain, site.axis) if gain.ndim == 2 else gain.astype(np.float64)
    return _finite(checkpoint, site.gain, size)


def _bias(checkpoint: Checkpoint, site: Site) -> _Vector | None:
    if site.bias is None:
        return None
    return _finite(checkpoint, site.bias, checkpoint.read(site.bias).astype(np.float64))


def _slice_norms(weight: npt.NDArray[Any], axis: int) -> _Vector:
    """Return the Euclidean norm of each dimension's slice, without a float64 copy of the whole."""
    by_dim = np.moveaxis(weight, axis, 0)
    step = max(1, _SLAB // max(1, by_dim.shape[1]))
    slabs = (by_dim[start : start + step] for start in range(0, by_dim.shape[0], step))
    return np.concatenate([np.linalg.norm(slab.astype(np.float64), axis=1) for slab in slabs])


def _finite(checkpoint: Checkpoint, name: str, values: _Vector) -> _Vector:
    if not np.isfinite(values).all():
        raise CheckpointError(
            f"{checkpoint.where(name)}: tensor {name} holds values that are not finite"
        )
    return values


def _sigmas(values: _Vector) -> _Vector:
    with np.errstate(over="ignore", invalid="ignore"):
        spread = values.std()
    if not np.isfinite(spread):  # the squares of float64 values may be too large for one
        values = values / np.abs(values).max()
        spread = values.std()
    return (values - values.mean()) / spread if spread > 0 else np.zeros_like(values)
