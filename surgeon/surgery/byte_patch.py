"""Values in terms of one file's bytes: where they lie, and what belongs there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from surgeon.checkpoint import TensorInfo


@dataclass(frozen=True, eq=False)
class Slices:
    """Values for a tensor's entries at ``dims`` along ``axis``, in the tensor's own dtype."""

    tensor: str
    axis: int
    dims: tuple[int, ...]
    values: npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class BytePatch:
    """Byte offsets in a file, ascending, (n,) int64, and what belongs there, (n,) uint8."""

    offsets: npt.NDArray[np.int64]
    content: npt.NDArray[np.uint8]


def make_byte_patch(slices: Iterable[Slices], tensors: Mapping[str, TensorInfo]) -> BytePatch:
    """Locate every scalar in the file whose header gave ``tensors``."""
    parts = [(_offsets(part, tensors[part.tensor]), _bytes(part.values)) for part in slices]
    offsets, content = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = np.argsort(offsets, kind="stable")
    return BytePatch(offsets[order], content[order])


def overlay(patch: BytePatch, path: Path) -> None:
    """Write a patch into a file in place, touching no other byte."""
    breaks = np.flatnonzero(np.diff(patch.offsets) != 1) + 1
    runs = zip(np.split(patch.offsets, breaks), np.split(patch.content, breaks), strict=True)
    with path.open("r+b") as file:
        for offsets, content in runs:
            if len(content):
                file.seek(offsets[0])
                file.write(content.tobytes())


def _offsets(part: Slices, tensor: TensorInfo) -> npt.NDArray[np.int64]:
    element_size = part.values.dtype.itemsize
    coordinates = [np.arange(length, dtype=np.int64) for length in tensor.shape]
    coordinates[part.axis] = np.asarray(part.dims, dtype=np.int64)
    elements = np.ravel_multi_index(np.ix_(*coordinates), tensor.shape).reshape(-1, 1)
    return (tensor.start + elements * element_size + np.arange(element_size)).reshape(-1)


def _bytes(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    return np.frombuffer(np.ascontiguousarray(values).tobytes(), dtype=np.uint8)
