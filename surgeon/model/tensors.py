"""Tensors in files: where the bytes of each lie, and how its numbers are read and rounded."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from surgeon.errors import CheckpointError

PIECE = 4 * 2**20
"""Bytes per piece of a tensor that is read in pieces; a multiple of every element's size."""

# Bits per element of every dtype of the safetensors format (enum Dtype of its Rust source).
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
    "F8_E5M2": 8, "F8_E4M3": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F8_E8M0": 8,
    "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip

_NUMPY = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}
_ML_DTYPES = {"BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}

FLOATS = (*_NUMPY, *_ML_DTYPES)
"""The dtypes whose scalars surgeon can read and write exactly."""


@dataclass(frozen=True)
class TensorInfo:
    """A tensor in a file: ``start`` and ``end`` are absolute byte offsets."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class TensorFile:
    """A file of any kind with tensors in it; nothing of them is read until it is asked for.

    A kind of file in which a tensor need not lie in one piece, or not on this disk, has its own
    ``pieces``; who reads a tensor need not know.
    """

    path: Path
    tensors: Mapping[str, TensorInfo]

    def read(self, name: str) -> npt.NDArray[Any]:
        """Return one floating-point tensor as an array of its own dtype.

        Raises:
            CheckpointError: the dtype is not one of ``FLOATS``, no array has the shape, or the
                tensor cannot be read.
        """
        info = self.tensors[name]
        dtype = editable_dtype(str(self.path), info)
        raw = bytearray()
        for piece in self.pieces(name):
            raw += piece
        try:
            return np.frombuffer(raw, dtype=dtype).reshape(info.shape)
        except ValueError as error:  # an empty one may claim any size of its other axes
            raise CheckpointError(
                f"{self.path}: tensor {name} claims the shape {info.shape} ({error})"
            ) from error

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield a tensor's bytes, of any dtype, in pieces of bounded length."""
        info = self.tensors[name]
        with self.path.open("rb") as file:
            file.seek(info.start)
            for start in range(info.start, info.end, PIECE):
                length = min(PIECE, info.end - start)
                piece = file.read(length)
                if len(piece) != length:
                    raise CheckpointError(
                        f"{self.path}: shorter than when it was opened; try again"
                    )
                yield piece

    def prefetch(self, names: Iterable[str]) -> None:
        """Fetch tensors together, ahead of ``read``; on disk there is no need."""


def editable_dtype(label: str, info: TensorInfo) -> np.dtype[Any]:
    """Return the numpy dtype of a tensor that can be edited; ``label`` names its file in errors.

    Raises:
        CheckpointError: the dtype is not one of ``FLOATS``.
    """
    if info.dtype not in FLOATS:
        raise CheckpointError(
            f"{label}: tensor {info.name} is stored as {info.dtype} of shape {list(info.shape)}, "
            "quantized or packed, which cannot be edited exactly; name sites that are float "
            "vectors with `sites` (final, embeddings), or give the model before it was quantized"
        )
    return float_dtype(info.dtype)


def float_dtype(name: str) -> np.dtype[Any]:
    """Return the numpy dtype for one of ``FLOATS`` (``KeyError`` for any other)."""
    if name in _NUMPY:
        return np.dtype(_NUMPY[name])
    import ml_dtypes  # 10 ms that a float32 checkpoint need not pay

    scalar: type[Any] = getattr(ml_dtypes, _ML_DTYPES[name])
    return np.dtype(scalar)


def round_once(values: npt.NDArray[np.float64], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Round float64 values to ``dtype``, to nearest, ties to even, in one rounding.

    ``ml_dtypes`` converts float64 by way of float32, and to float8_e5m2 by way of float16, which
    rounds twice. Rounding to odd in the first step makes the second one exact, as long as the step
    between has two bits more (Boldo and Melquiond 2008, "Emulation of FMA and correctly rounded
    sums"). Values beyond the range become infinite, or NaN where the dtype has no infinity.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if dtype.kind == "f" and dtype.itemsize > 1:
            return values.astype(dtype)
        between = np.float16 if dtype.name == "float8_e5m2" else np.float32
        rounded: npt.NDArray[Any] = _round_to_odd(values, between).astype(dtype)
        return rounded


def _round_to_odd(values: npt.NDArray[np.float64], dtype: type[np.floating[Any]]) -> Any:
    """Round to the one of the two nearest values whose last bit is 1, unless a value is exact."""
    nearest = values.astype(dtype)
    inexact = nearest.astype(np.float64) != values
    even = (nearest.view(f"u{nearest.itemsize}") & 1) == 0
    toward = np.where(nearest.astype(np.float64) < values, np.inf, -np.inf)
    odd = np.nextafter(nearest, toward.astype(dtype))
    return np.where(inexact & even, odd, nearest)
