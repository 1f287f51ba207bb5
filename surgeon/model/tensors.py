"""Tensors in files: where the bytes of each lie, and how its numbers are read and rounded.

A safetensors file, the usual kind, has eight bytes of header length, a JSON header, then the
tensors' bytes, little-endian and row-major (https://huggingface.co/docs/safetensors). Its header
is checked before anything is allocated.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from surgeon.errors import CheckpointError
from surgeon.model.files import Pairs, parse_json, weights_size

PIECE = 4 * 2**20
"""Bytes per piece of a tensor that is read in pieces; a multiple of every element's size."""

# Bits per element of every dtype of the safetensors format (enum Dtype of its Rust source).
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
    "F8_E5M2": 8, "F8_E4M3": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F8_E8M0": 8,
    "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip

_NUMPY = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I8": "i1", "U8": "u1"}
_ML_DTYPES = {
    "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
}  # fmt: skip

FLOATS = ("F16", "F32", "F64", "BF16", "F8_E4M3", "F8_E5M2")
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
        """Return one tensor as an array of its own dtype.

        Raises:
            CheckpointError: no array has the dtype or the shape, or the tensor cannot be read.
        """
        info = self.tensors[name]
        if info.dtype not in (*_NUMPY, *_ML_DTYPES):
            raise quantized(self.path, info)
        dtype, read = numpy_dtype(info.dtype), 0
        try:
            content = np.empty(info.size * dtype.itemsize, np.uint8)
            for piece in self.pieces(name):
                content[read : read + len(piece)] = np.frombuffer(piece, np.uint8)
                read += len(piece)
            return content[:read].view(dtype).reshape(info.shape)
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


def quantized(path: Path, info: TensorInfo) -> CheckpointError:
    """Return the error that a tensor's numbers are not as they are stored."""
    return CheckpointError(
        f"{path}: tensor {info.name} is stored as {info.dtype} of shape {list(info.shape)}, "
        "quantized or packed, which cannot be edited exactly; give the model before it was "
        "quantized, or edit its float vectors alone, by `sites` (final, embeddings)"
    )


def numpy_dtype(name: str) -> np.dtype[Any]:
    """Return the numpy dtype for one of the format's (``KeyError`` where there is none)."""
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


PREFIX = 8
"""Bytes before the header, which hold its length."""

MAX_AXES, MAX_LENGTH = 64, 2**63
"""The bounds of a shape, beyond which no array goes and their product would take forever."""

_MAX_HEADER = 100_000_000  # bytes, the bound of the reference implementation


@dataclass(frozen=True)
class SafetensorsFile(TensorFile):
    """A safetensors file; ``tensors`` is in the order of the header."""

    metadata: Mapping[str, str]


def open_safetensors(path: Path) -> SafetensorsFile:
    """Read and check the header of a safetensors file.

    Raises:
        CheckpointError: the file is shorter than it claims, or the header is not one.
    """
    size = weights_size(path)
    with path.open("rb") as file:
        length = header_length(str(path), file.read(PREFIX), size)
        tensors, metadata = parse_header(str(path), file.read(length), size)
    return SafetensorsFile(path, tensors, metadata)


def header_length(label: str, prefix: bytes, size: int) -> int:
    """Return the length of the header that a file of ``size`` bytes claims in its first bytes.

    Raises:
        CheckpointError: it is more than the file has or a header may have.
    """
    if len(prefix) < PREFIX:
        raise CheckpointError(f"{label}: {size} bytes is too short for a safetensors file")
    length = int.from_bytes(prefix[:PREFIX], "little")
    if length > size - PREFIX:
        raise CheckpointError(
            f"{label}: the header claims {length} bytes but the file has {size}; "
            "it is truncated or no safetensors file: fetch it again"
        )
    if length > _MAX_HEADER:
        raise CheckpointError(f"{label}: a header of {length} bytes is over {_MAX_HEADER}")
    return length


def parse_header(
    label: str, raw: bytes, size: int
) -> tuple[dict[str, TensorInfo], Mapping[str, str]]:
    """Parse and check the JSON header of a file of ``size`` bytes; ``label`` names it in errors.

    Returns the tensors, with absolute offsets, and the metadata.

    Raises:
        CheckpointError: it is not a header, or does not describe the file to the last byte.
    """
    try:
        header = parse_json(raw, _without_duplicates)
    except ValueError as error:
        raise CheckpointError(f"{label}: the header is not valid JSON ({error})") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{label}: the header is not a JSON object")
    metadata = header.pop("__metadata__", None)
    metadata = {} if metadata is None else metadata  # the reference implementation reads null too
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise CheckpointError(f"{label}: __metadata__ in the header is not a map of strings")
    data = PREFIX + len(raw)
    tensors = {name: _tensor(label, name, entry, data) for name, entry in header.items()}
    _check_layout(label, tensors.values(), data, size)
    return tensors, metadata


def _without_duplicates(pairs: Pairs) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name occurs twice")
    return result


def _tensor(label: str, name: str, entry: object, data: int) -> TensorInfo:
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [start, end]} if len(
            shape
        ) <= MAX_AXES and all(
            type(n) is int and 0 <= n <= MAX_LENGTH for n in (*shape, start, end)
        ):
            pass
        case _:
            raise CheckpointError(f"{label}: the header's entry for {name!r} is malformed")
    if dtype not in BITS:
        raise CheckpointError(f"{label}: tensor {name} has the unknown dtype {dtype!r}")
    elements = math.prod(shape)
    if elements > MAX_LENGTH or (end - start) * 8 != elements * BITS[dtype]:
        raise CheckpointError(
            f"{label}: tensor {name} claims shape {shape} of {dtype} in {end - start} bytes"
        )
    return TensorInfo(name, dtype, tuple(shape), data + start, data + end)


def _check_layout(label: str, tensors: Iterable[TensorInfo], data: int, size: int) -> None:
    position = data
    for tensor in sorted(tensors, key=lambda t: (t.start, t.end)):
        if tensor.start != position:
            raise CheckpointError(
                f"{label}: tensor {tensor.name} starts at byte {tensor.start}, not at {position}: "
                "tensors overlap or leave a gap"
            )
        position = tensor.end
    if position != size:
        raise CheckpointError(
            f"{label}: the header describes {position} bytes but the file has {size}; "
            "it is truncated or damaged: fetch it again"
        )
