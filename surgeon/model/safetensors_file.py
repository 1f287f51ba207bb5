"""A safetensors file: its header, checked before anything is allocated.

Follows the format description at https://huggingface.co/docs/safetensors: eight bytes of header
length, a JSON header, then the tensors' bytes, little-endian and row-major.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surgeon.errors import CheckpointError
from surgeon.model.files import POINTER_BYTES, Pairs, parse_json, refuse_pointer, regular_size
from surgeon.model.tensors import BITS, TensorFile, TensorInfo

PREFIX = 8
"""Bytes before the header, which hold its length."""

_MAX_HEADER = 100_000_000  # bytes, the bound of the reference implementation
_MAX_ELEMENTS = 2**63


@dataclass(frozen=True)
class SafetensorsFile(TensorFile):
    """A safetensors file; ``tensors`` is in the order of the header."""

    metadata: Mapping[str, str]


def open_safetensors(path: Path) -> SafetensorsFile:
    """Read and check the header of a safetensors file.

    Raises:
        CheckpointError: the file is shorter than it claims, or the header is not one.
    """
    size = regular_size(path)
    with path.open("rb") as file:
        start = file.read(max(PREFIX, POINTER_BYTES))
        refuse_pointer(str(path), start)
        length = header_length(str(path), start[:PREFIX], size)
        file.seek(PREFIX)
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
        CheckpointError: it is no header, or does not describe the file to the last byte.
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
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [start, end]} if all(
            type(number) is int and 0 <= number <= _MAX_ELEMENTS for number in (*shape, start, end)
        ):
            pass
        case _:
            raise CheckpointError(f"{label}: the header's entry for {name!r} is malformed")
    if dtype not in BITS:
        raise CheckpointError(f"{label}: tensor {name} has the unknown dtype {dtype!r}")
    elements = math.prod(shape)
    if elements > _MAX_ELEMENTS or (end - start) * 8 != elements * BITS[dtype]:
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
