"""Modes: what an edit puts in place of the old values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from surgeon.errors import SelectionError
from surgeon.model.tensors import round_once

Mode: TypeAlias = Literal["zero", "scale", "mean"]
_Float64: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Operand:
    """What a mode works on: ``old`` are the slices of ``tensor``, stored less ``offset``."""

    old: _Float64
    tensor: npt.NDArray[Any]
    axis: int
    factor: float
    offset: float


def _zero(on: _Operand) -> _Float64:
    return np.full_like(on.old, 0.0 - on.offset)


def _scale(on: _Operand) -> _Float64:
    if not on.offset:
        return on.old * on.factor
    # (old + offset) × factor − offset, in an order in which a factor of 1 changes nothing.
    return on.old * on.factor + on.offset * (on.factor - 1)


def _mean(on: _Operand) -> _Float64:
    # The mean shifts with the offset, which falls out; numpy converts one buffer at a time.
    mean = np.mean(on.tensor, axis=on.axis, keepdims=True, dtype=np.float64)
    return np.broadcast_to(mean, on.old.shape)


MODES: dict[str, Callable[[_Operand], _Float64]] = {
    "zero": _zero,  # the paper's: gain = bias = 0
    "scale": _scale,  # old × factor
    "mean": _mean,  # the mean of the vector over all dimensions (of a weight: for each input)
}


def new_values(
    tensor: npt.NDArray[Any],
    axis: int,
    dims: Sequence[int],
    mode: str,
    factor: float | None,
    offset: float = 0.0,
) -> npt.NDArray[Any]:
    """Return what ``mode`` puts in place of ``tensor``'s slices at ``dims``.

    Args:
        tensor: a vector (hidden,) or a weight whose ``axis`` has the hidden size.
        axis: the axis that the dimension indexes.
        dims: the dimensions.
        mode: a key of ``MODES``.
        factor: what ``scale`` multiplies by.
        offset: what the model adds to the stored values; the mode acts on the sum.

    Returns:
        An array of the tensor's dtype, with ``len(dims)`` entries along ``axis``; computed in
        float64 and rounded once.

    Raises:
        SelectionError: a finite value would become one that the dtype cannot hold.
    """
    old = np.take(tensor, dims, axis=axis).astype(np.float64)
    operand = _Operand(old, tensor, axis, factor or 0.0, offset)
    new = round_once(MODES[mode](operand), tensor.dtype)
    overflow = np.isfinite(old) & ~np.isfinite(new.astype(np.float64))
    if overflow.any():
        raise SelectionError(
            f"`mode` {mode}: the result does not fit {tensor.dtype}; use a smaller `factor`"
        )
    return new
