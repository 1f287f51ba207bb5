"""The literature's criteria for outlier activations, on statistics of constant size per layer.

They are about the hidden states that leave each layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Bools: TypeAlias = npt.NDArray[np.bool_]

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


def _cosine(layers: Sequence[LayerStates]) -> Bools:
    # The mean over all pairs of tokens of x_d y_d / (|x||y|) is the square of the mean direction.
    contribution = np.square(layers[-1].directions)
    met: Bools = contribution >= 0.1 * max(contribution.sum(), np.finfo(np.float64).tiny)
    return met


CRITERIA: dict[str, Criterion] = {
    "int8": Criterion(
        lambda layers: np.mean([s.above_six >= 0.06 * s.tokens for s in layers], axis=0) >= 0.25,
        "|x| of 6 or more for at least 6% of the tokens, in at least a quarter of the layers",
        "Dettmers et al. 2022, arXiv 2208.07339",
    ),
    "massive": Criterion(
        lambda layers: np.any([states.massive for states in layers], axis=0),
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
        lambda layers: np.mean([s.extreme / s.tokens for s in layers], axis=0) >= 0.5,
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
