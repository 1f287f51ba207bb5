"""What can be done to a dimension: each mode maps a tensor to the new values of its slices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from surgeon.checkpoint.dtypes import round_once
from surgeon.errors import SelectionError

_Float64: TypeAlias = npt.NDArray[np.float64]


def _zero(old: _Float64, tensor: npt.NDArray[Any], axis: int, factor: float) -> _Float64:  # noqa: ARG001
    return np.zeros_like(old)


def _scale(old: _Float64, tensor: npt.NDArray[Any], axis: int, factor: float) -> _Float64:  # noqa: ARG001
    return old * factor


def _mean(old: _Float64, tensor: npt.NDArray[Any], axis: int, factor: float) -> _Float64:  # noqa: ARG001
    mean = tensor.astype(np.float64).mean(axis=axis, keepdims=True)
    return np.broadcast_to(mean, old.shape)


MODES: dict[str, Callable[[_Float64, npt.NDArray[Any], int, float], _Float64]] = {
    "zero": _zero,  # the paper's: gain = bias = 0
    "scale": _scale,  # old × factor
    "mean": _mean,  # the mean of the vector over all dimensions (of a weight: for each input)
}


def new_values(
    tensor: npt.NDArray[Any], axis: int, dims: Sequence[int], mode: str, factor: float | None
) -> npt.NDArray[Any]:
    """Return what ``mode`` puts in place of ``tensor``'s slices at ``dims``.

    Args:
        tensor: a vector (hidden,) or a weight whose ``axis`` has the hidden size.
        axis: the axis that the dimension indexes.
        dims: the dimensions.
        mode: a key of ``MODES``.
        factor: what ``scale`` multiplies by.

    Returns:
        An array of the tensor's dtype, with ``len(dims)`` entries along ``axis``; computed in
        float64 and rounded once.

    Raises:
        SelectionError: a finite value would become one that the dtype cannot hold.
    """
    old = np.take(tensor, dims, axis=axis).astype(np.float64)
    new = round_once(MODES[mode](old, tensor, axis, factor or 0.0), tensor.dtype)
    overflow = np.isfinite(old) & ~np.isfinite(new.astype(np.float64))
    if overflow.any():
        raise SelectionError(
            f"--mode {mode}: the result does not fit {tensor.dtype}; use a smaller --factor"
        )
    return new
