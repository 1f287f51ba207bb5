"""What differs between two checkpoints: which tensors, which dimensions, how many scalars."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from surgeon.checkpoint import Checkpoint, TensorInfo
from surgeon.checkpoint.dtypes import BITS
from surgeon.progress import Progress, silent

_MOST_DIMS = 64


@dataclass(frozen=True)
class TensorDifference:
    """How one tensor differs.

    ``changed`` counts scalars that differ in at least one bit; ``dims`` are the indices along
    ``axis`` that hold them all, where there are at most 64 (None: the change is spread). ``reason``
    is "values", "packed values" (several share a byte, in an order that the format leaves open),
    "dtype", "shape", "only in A" or "only in B"; any but the first counts all scalars.
    """

    name: str
    reason: str
    changed: int
    axis: int | None
    dims: tuple[int, ...] | None


@dataclass(frozen=True)
class Comparison:
    """The differing tensors of two checkpoints, in the order of the first."""

    tensors: tuple[TensorDifference, ...]
    compared: int

    @property
    def identical(self) -> bool:
        """Whether both hold the same tensors, bit for bit."""
        return not self.tensors

    @property
    def scalars_changed(self) -> int:
        """How many scalars differ in all."""
        return sum(tensor.changed for tensor in self.tensors)

    def to_json(self) -> dict[str, Any]:
        """Return the document that ``diff --json`` prints."""
        return {
            "identical": self.identical,
            "scalars_changed": self.scalars_changed,
            "tensors_compared": self.compared,
            "tensors": [asdict(tensor) for tensor in self.tensors],
        }


def compare(a: Checkpoint, b: Checkpoint, progress: Progress = silent) -> Comparison:
    """Compare two checkpoints tensor by tensor, whatever files they lie in, piece by piece.

    Memory does not grow with the checkpoints, pickles aside.

    Raises:
        CheckpointError: a file is shorter than its header says.
    """
    names = list(dict.fromkeys((*a.tensors, *b.tensors)))
    found = []
    for number, name in enumerate(names):
        progress(f"comparing {name}", number, len(names))
        difference = _compare_tensor(a, b, name)
        if difference is not None:
            found.append(difference)
    return Comparison(tuple(found), len(names))


def _compare_tensor(a: Checkpoint, b: Checkpoint, name: str) -> TensorDifference | None:
    one, other = a.tensors.get(name), b.tensors.get(name)
    if one is None or other is None:
        there = one or other
        assert there is not None
        reason = "only in A" if other is None else "only in B"
        return TensorDifference(name, reason, there.size, None, None)
    if one.dtype != other.dtype or one.shape != other.shape:
        reason = "dtype" if one.dtype != other.dtype else "shape"
        return TensorDifference(name, reason, max(one.size, other.size), None, None)
    return _compare_values(one, a.homes[name].pieces(name), b.homes[name].pieces(name))


def _compare_values(
    info: TensorInfo, one: Iterable[bytes], other: Iterable[bytes]
) -> TensorDifference | None:
    if BITS[info.dtype] < 8:
        same = all(left == right for left, right in zip(one, other, strict=True))
        return None if same else TensorDifference(info.name, "packed values", info.size, None, None)
    element = BITS[info.dtype] // 8
    changed, position = 0, 0
    touched = [np.zeros(length, dtype=np.bool_) for length in info.shape]
    for left, right in zip(one, other, strict=True):
        if left != right:
            where = position + _differing(left, right, element)
            changed += where.size
            if touched:  # a scalar has no axis
                for flags, index in zip(touched, np.unravel_index(where, info.shape), strict=True):
                    flags[index] = True
        position += len(left) // element
    if not changed:
        return None
    axis = min(range(len(touched)), key=lambda i: int(touched[i].sum()), default=None)
    dims = np.flatnonzero(touched[axis]) if axis is not None else np.empty(0, dtype=np.int64)
    few = axis is not None and dims.size <= _MOST_DIMS
    listed = tuple(int(dim) for dim in dims) if few else None
    return TensorDifference(info.name, "values", changed, axis if few else None, listed)


def _differing(left: bytes, right: bytes, element: int) -> npt.NDArray[np.int64]:
    """Return the numbers of the elements that differ, of ``element`` bytes each."""
    pair = (np.frombuffer(piece, dtype=np.uint8).reshape(-1, element) for piece in (left, right))
    return np.flatnonzero((next(pair) != next(pair)).any(axis=1))
