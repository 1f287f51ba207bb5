"""The protobuf wire format: fields by offset, and the few bytes that an edit has to write.

Follows https://protobuf.dev/programming-guides/encoding/. The protobuf library parses whole
messages into copies and keeps no offsets; here the weights in a file are passed over, never read.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from surgeon.errors import CheckpointError

Buffer: TypeAlias = mmap.mmap | bytes

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
"""Wire types. Groups (3 and 4) have been deprecated since before ONNX was."""

_MAX_VARINT = 10  # bytes
_FIXED = {FIXED64: 8, FIXED32: 4}


class Field(NamedTuple):
    """One field of a message: ``start`` is where its tag begins, ``begin`` where its payload does.

    ``end`` is one past the payload; ``value`` is what a varint says, 0 for other wire types.
    """

    number: int
    wire: int
    start: int
    begin: int
    end: int
    value: int


def read_fields(data: Buffer, begin: int, end: int) -> Iterator[Field]:
    """Yield the fields of the message in ``data[begin:end]``.

    Raises:
        CheckpointError: the bytes are not a message; the caller names the file.
    """
    position = begin
    while position < end:
        start = position
        tag, position = _read_varint(data, position, end)
        number, wire = tag >> 3, tag & 7
        value = 0
        if wire == VARINT:
            payload = position
            value, position = _read_varint(data, position, end)
        elif wire == LENGTH:
            length, payload = _read_varint(data, position, end)
            position = payload + length
        elif wire in _FIXED:
            payload, position = position, position + _FIXED[wire]
        else:
            raise CheckpointError(f"not ONNX, or damaged: byte {start} is not a protobuf field")
        if position > end or not number:
            raise CheckpointError(f"the protobuf field at byte {start} ends after its message")
        yield Field(number, wire, start, payload, position, value)


def read_packed(data: Buffer, field: Field) -> list[int]:
    """Return the integers of a repeated field, of one value or packed; none is negative."""
    if field.wire == VARINT:
        return [field.value]
    found: list[int] = unpack(data[field.begin : field.end]).tolist()
    return found


def unpack(data: bytes) -> npt.NDArray[np.uint64]:
    """Return the integers of a packed field, none of which is negative.

    Raises:
        CheckpointError: the last one is cut off, or one is longer than 64 bits take.
    """
    raw = np.frombuffer(data, dtype=np.uint8)
    ends = raw < 0x80
    if not raw.size:
        return np.empty(0, dtype=np.uint64)
    starts = np.flatnonzero(np.concatenate([[True], ends[:-1]]))
    place = np.arange(raw.size) - np.repeat(starts, np.diff([*starts, raw.size]))
    if not ends[-1] or place.max() >= _MAX_VARINT - 1:
        raise CheckpointError("a packed field has an integer that is cut off or too long")
    groups = (raw & 0x7F).astype(np.uint64) << (7 * place).astype(np.uint64)
    integers: npt.NDArray[np.uint64] = np.add.reduceat(groups, starts)
    return integers


def encode_field(number: int, payload: bytes) -> bytes:
    """Return a length-delimited field: a string, bytes or a message."""
    return encode_header(number, len(payload)) + payload


def encode_header(number: int, length: int) -> bytes:
    """Return what stands before the payload of a length-delimited field."""
    return _encode_varint(number << 3 | LENGTH) + _encode_varint(length)


def _encode_varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _read_varint(data: Buffer, position: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while position < end and shift < 7 * _MAX_VARINT:
        byte = data[position]
        position += 1
        if byte < 0x80:
            return value | byte << shift, position
        value |= (byte & 0x7F) << shift
        shift += 7
    raise CheckpointError(f"byte {position} is not in a protobuf number")
