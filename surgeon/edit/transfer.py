"""Copying a file, with or without a patch, hashed on the way: one pass over the bytes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from surgeon.errors import CheckpointError
from surgeon.model import TensorInfo
from surgeon.model.files import regular_size

_PIECE = 2**19  # bytes read at a time: a core's own cache has room for them
_SPAN = 2**26  # bytes that the kernel copies at a time
_FICLONE = 0x40049409  # ioctl of Linux: share the extents of another file (man ioctl_ficlone)


@dataclass(frozen=True)
class FileState:
    """A file's size in bytes and its BLAKE3 hash as hex."""

    size: int
    blake3: str


def hash_file(path: Path) -> FileState:
    """Hash a file in constant memory."""
    return transfer(path, None)[0]


def transfer(
    source: Path, target: Path | None, old: BytePatch | None = None, new: BytePatch | None = None
) -> tuple[FileState, FileState]:
    """Copy a file with ``new`` in it, and return the states of the source and of the target.

    The target shares the source's extents where the file system can (a reflink), and never its
    inode: an edit of one must not reach the other. A link is followed.

    Args:
        source: the file to copy.
        target: where to, a new file; its folder is made (None: nowhere, only hash).
        old: what the source must hold where ``new`` goes.
        new: what to write, at the same offsets.

    Raises:
        CheckpointError: the source does not hold ``old``.
    """
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
    states = _pass_over(source, target, old, new)
    if target is not None and new is not None:
        overlay(new, target)
    return states


def _pass_over(
    source: Path, target: Path | None, old: BytePatch | None, new: BytePatch | None
) -> tuple[FileState, FileState]:
    """Hash a file, and its patched twin, and copy the file as it is to a target.

    A second thread hashes while this one has the kernel copy; whoever copies no longer helps with
    the hash of the twin.
    """
    regular_size(source)
    found = source.stat()
    hashes = _Hashes(source, old, new)
    with ThreadPoolExecutor(1) as pool:
        hashing = pool.submit(hashes.update)
        try:
            if target is not None:
                _copy(source, target)
            hashes.help()
            hashing.result()
        finally:
            hashes.stop()
    now = source.stat()
    if (now.st_size, now.st_mtime_ns) != (found.st_size, found.st_mtime_ns):
        raise _changed(source)
    return hashes.states(found.st_size)


class _Hashes:
    """The hash of a file, and that of its patched twin if it has one, by one thread or two.

    Both take a piece while the core's cache has it, until a second thread helps: it goes on with
    the twin from there, reading for itself.
    """

    def __init__(self, source: Path, old: BytePatch | None, new: BytePatch | None) -> None:
        from blake3 import blake3

        self._source, self._old, self._new = source, old, new
        self._stored, self._twin = blake3(), blake3()
        self._twin_position = 0
        self._helped = self._stopped = False
        self._lock = Lock()

    def update(self) -> None:
        for position, piece in self._pieces(0):
            self._stored.update(piece)
            with self._lock:
                if self._new is not None and not self._helped:
                    self._update_twin(position, piece, self._new)

    def help(self) -> None:
        if self._new is None:
            return
        with self._lock:
            self._helped = True
        for position, piece in self._pieces(self._twin_position):
            self._update_twin(position, piece, self._new)

    def stop(self) -> None:
        self._stopped = True

    def states(self, size: int) -> tuple[FileState, FileState]:
        stored = FileState(size, self._stored.hexdigest())
        return stored, stored if self._new is None else FileState(size, self._twin.hexdigest())

    def _pieces(self, position: int) -> Iterator[tuple[int, memoryview]]:
        """Yield the file's pieces from a position on, each in the same buffer."""
        buffer = memoryview(bytearray(_PIECE))
        with self._source.open("rb", buffering=0) as file:
            file.seek(position)
            while not self._stopped and (length := file.readinto(buffer)):
                yield position, buffer[:length]
                position += length

    def _update_twin(self, position: int, piece: memoryview, new: BytePatch) -> None:
        first, last = np.searchsorted(new.offsets, [position, position + len(piece)])
        if first < last:
            where = new.offsets[first:last] - position
            array = np.frombuffer(piece, dtype=np.uint8)
            if self._old and not np.array_equal(array[where], self._old.content[first:last]):
                raise _changed(self._source)
            array[where] = new.content[first:last]
        self._twin.update(piece)
        self._twin_position = position + len(piece)


def _changed(source: Path) -> CheckpointError:
    return CheckpointError(f"{source.name}: changed while it was being read; run surgeon again")


def _copy(source: Path, target: Path) -> None:
    """Make a file with the bytes of another: share its extents, or have the kernel copy, as cp."""
    # Made by this open, not cut to nothing by it: ext4 would write all of it out at the close.
    with source.open("rb", buffering=0) as read, target.open("xb") as write:
        if _reflink(read.fileno(), write.fileno()):
            return
        try:
            while os.copy_file_range(read.fileno(), write.fileno(), _SPAN):
                pass
        except (AttributeError, OSError):  # not this system, or not between these files
            shutil.copyfileobj(read, write, _PIECE)  # the rest; says so if the disk is full


def _reflink(source: int, target: int) -> bool:
    try:
        import fcntl

        fcntl.ioctl(target, _FICLONE, source)
    except (ImportError, OSError):  # not this platform, or not this file system
        return False
    return True


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
