"""Putting values into a tensor at some of its dimensions."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt


def with_slices(
    tensor: npt.NDArray[Any], axis: int, dims: tuple[int, ...], values: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    """Return a copy of a tensor with other values at ``dims`` along ``axis``."""
    result = tensor.copy()
    index: list[Any] = [slice(None)] * tensor.ndim
    index[axis] = list(dims)
    result[tuple(index)] = values
    return result
