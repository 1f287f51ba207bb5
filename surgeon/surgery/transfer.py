"""Copying a file, with or without a patch, hashed on the way: one pass over the bytes."""

from __future__ import annotations

import mmap
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from surgeon.errors import CheckpointError
from surgeon.surgery.byte_patch import BytePatch, overlay

_PIECE = 4 * 2**20  # bytes mapped at a time; a multiple of every system's page size
_AHEAD = 4  # pieces that may wait for their hash
_FICLONE = 0x40049409  # ioctl of Linux: share the extents of another file (man ioctl_ficlone)


Buffer: TypeAlias = mmap.mmap | bytearray


@dataclass(frozen=True)
class FileState:
    """A file's size in bytes and its BLAKE3 hash as hex."""

    size: int
    blake3: str


def hash_file(path: Path) -> FileState:
    """Hash a file in constant memory."""
    return _pass_over(path, None, None)[0]


def hash_as_if(path: Path, patch: BytePatch | None) -> FileState:
    """Return the state that a file would have with a patch applied, leaving it as it is."""
    return _pass_over(path, None, patch)[1]


def transfer(
    source: Path, target: Path, old: BytePatch | None = None, new: BytePatch | None = None
) -> tuple[FileState, FileState]:
    """Copy a file with ``new`` in it, and return the states of the source and of the target.

    The target shares the source's extents where the file system can (a reflink), and never its
    inode: an edit of one must not reach the other. A link is followed. The bytes hashed are the
    bytes written.

    Args:
        source: the file to copy.
        target: where to; its folder is made.
        old: what the source must hold where ``new`` goes.
        new: what to write, at the same offsets.

    Raises:
        CheckpointError: the source does not hold ``old``.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb", buffering=0) as write:
        cloned = _reflink(source, write.fileno())
        if not cloned:
            return _pass_over(source, old, new, write.fileno())
    states = _pass_over(source, old, new)
    if new is not None:
        overlay(new, target)
    return states


def _pass_over(
    source: Path,
    old: BytePatch | None,
    new: BytePatch | None,
    target: int | None = None,
) -> tuple[FileState, FileState]:
    """Read a file once: hash it, hash it as patched, and write it so to a descriptor.

    One thread hashes while this one writes. Up to the first patched byte the two hashes are one.
    """
    hashes = _Hashes()
    position = 0
    with source.open("rb") as read, ThreadPoolExecutor(1) as hashing:
        found = os.fstat(read.fileno())
        size = found.st_size
        waiting: deque[Future[None]] = deque()
        while position < size:
            piece = _map(read.fileno(), position, min(_PIECE, size - position))
            patched = _patched(piece, position, old, new, source)
            waiting.append(hashing.submit(hashes.update, piece, patched))
            if target is not None:
                _copy(read.fileno(), target, position, patched, changed=patched is not piece)
            position += len(piece)
            if len(waiting) > _AHEAD:
                waiting.popleft().result()
        for future in waiting:
            future.result()
        if os.fstat(read.fileno()).st_mtime_ns != found.st_mtime_ns:
            raise _changed(source)
    return hashes.states(position)


class _Hashes:
    """The hash of a file and of its patched twin, each fed in order."""

    def __init__(self) -> None:
        from blake3 import blake3

        self._before = blake3()
        self._after = self._before

    def update(self, piece: Buffer, patched: Buffer) -> None:
        if patched is not piece and self._after is self._before:
            self._after = self._before.copy()
        self._before.update(piece)
        if self._after is not self._before:
            self._after.update(patched)

    def states(self, size: int) -> tuple[FileState, FileState]:
        return FileState(size, self._before.hexdigest()), FileState(size, self._after.hexdigest())


def _map(descriptor: int, position: int, length: int) -> mmap.mmap:
    # Its pages at once, where the system can: one call instead of a fault for each. A shared
    # mapping would be the same to read, and takes Linux three times as long to make.
    flags = mmap.MAP_PRIVATE | getattr(mmap, "MAP_POPULATE", 0)
    return mmap.mmap(descriptor, length, flags, mmap.PROT_READ, offset=position)


def _patched(
    piece: mmap.mmap, position: int, old: BytePatch | None, new: BytePatch | None, source: Path
) -> Buffer:
    """Return the piece with its part of ``new`` in it, or itself where it has none."""
    if new is None:
        return piece
    first, last = np.searchsorted(new.offsets, [position, position + len(piece)])
    if first == last:
        return piece
    content = bytearray(piece)
    array: npt.NDArray[np.uint8] = np.frombuffer(content, dtype=np.uint8)
    where = new.offsets[first:last] - position
    if old is not None and not np.array_equal(array[where], old.content[first:last]):
        raise _changed(source)
    array[where] = new.content[first:last]
    return content


def _changed(source: Path) -> CheckpointError:
    return CheckpointError(f"{source.name}: changed while it was being read; run surgeon again")


def _copy(source: int, target: int, position: int, piece: Buffer, *, changed: bool) -> None:
    """Write a piece; one that is as in the source is left to the kernel to copy, as cp does."""
    left = 0 if changed or not hasattr(os, "copy_file_range") else len(piece)
    try:
        while left:
            left -= os.copy_file_range(source, target, left, position + len(piece) - left)
    except OSError:  # not between these files; if the disk is full, writing says so too
        os.lseek(target, position, os.SEEK_SET)
    else:
        if not changed and hasattr(os, "copy_file_range"):
            return
    _write_all(target, piece)


def _write_all(descriptor: int, piece: Buffer) -> None:
    left = memoryview(piece)
    while left:
        left = left[os.write(descriptor, left) :]


def _reflink(source: Path, target: int) -> bool:
    try:
        import fcntl

        with source.open("rb") as read:
            fcntl.ioctl(target, _FICLONE, read.fileno())
    except (ImportError, OSError):  # not this platform, or not this file system
        return False
    return True
