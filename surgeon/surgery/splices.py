"""Rewriting a file of which parts change their length, and undoing that."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from surgeon.errors import CheckpointError
from surgeon.surgery.byte_patch import BytePatch
from surgeon.surgery.transfer import FileState

_PIECE = 4 * 2**20  # bytes


@dataclass(frozen=True)
class Splice:
    """``length`` bytes from ``start`` on in a file, and what takes their place."""

    start: int
    length: int
    content: bytes


def spliced(
    path: Path, splices: Sequence[Splice], patch: BytePatch | None = None
) -> Iterator[bytes]:
    """Yield a file's bytes with a patch applied and then splices, in bounded memory.

    Args:
        path: the file.
        splices: parts to replace, at offsets of the file as it lies; they do not overlap.
        patch: bytes to write in place, at offsets of the file as it lies.

    Raises:
        CheckpointError: a splice lies outside the file, or they overlap.
    """
    size = path.stat().st_size
    ordered = sorted(splices, key=lambda splice: (splice.start, splice.length))
    ends = [0, *(splice.start + splice.length for splice in ordered)]
    starts = [*(splice.start for splice in ordered), size]
    contents = [*(splice.content for splice in ordered), b""]
    if any(start < end for start, end in zip(starts, ends, strict=True)):
        raise CheckpointError(f"{path}: its recorded changes do not fit it; it is damaged")
    for start, end, content in zip(ends, starts, contents, strict=True):
        yield from _range(path, start, end, patch)
        yield content


def write_pieces(pieces: Iterable[bytes], target: Path) -> FileState:
    """Write a file piece by piece, and return its state."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        return hash_pieces(_written(pieces, file.write))


def hash_pieces(pieces: Iterable[bytes]) -> FileState:
    """Return the state that a file of these pieces has."""
    from blake3 import blake3

    digest, size = blake3(), 0
    for piece in pieces:
        digest.update(piece)
        size += len(piece)
    return FileState(size, digest.hexdigest())


def inverse(splices: Sequence[Splice], path: Path) -> tuple[Splice, ...]:
    """Return what undoes splices of the file at ``path``, at offsets of the spliced file."""
    ordered = sorted(splices, key=lambda splice: (splice.start, splice.length))
    growth = (len(splice.content) - splice.length for splice in ordered)
    shifts = itertools.accumulate(growth, initial=0)
    with path.open("rb") as file:
        return tuple(
            Splice(splice.start + shift, len(splice.content), _read(file, splice))
            for splice, shift in zip(ordered, shifts, strict=False)
        )


def _read(file: BinaryIO, splice: Splice) -> bytes:
    file.seek(splice.start)
    return file.read(splice.length)


def _written(pieces: Iterable[bytes], write: Callable[[bytes], object]) -> Iterator[bytes]:
    for piece in pieces:
        write(piece)
        yield piece


def _range(path: Path, start: int, end: int, patch: BytePatch | None) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        for position in range(start, end, _PIECE):
            piece = bytearray(file.read(min(_PIECE, end - position)))
            if patch is not None:
                first, last = np.searchsorted(patch.offsets, [position, position + len(piece)])
                array = np.frombuffer(piece, dtype=np.uint8)
                array[patch.offsets[first:last] - position] = patch.content[first:last]
            yield bytes(piece)
