"""Copying a file, with or without a patch, hashed on the way: one pass over the bytes."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from surgeon.errors import CheckpointError
from surgeon.surgery.byte_patch import BytePatch, overlay

_CHUNK = 8 * 2**20  # bytes at a time: long enough to hash in parallel, short enough to stay cached
_FICLONE = 0x40049409  # ioctl of Linux: share the extents of another file (man ioctl_ficlone)


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
            return _pass_over(source, old, new, lambda chunk: _write_all(write.fileno(), chunk))
    states = _pass_over(source, old, new)
    if new is not None:
        overlay(new, target)
    return states


def _pass_over(
    source: Path,
    old: BytePatch | None,
    new: BytePatch | None,
    write: Callable[[memoryview], None] = lambda _chunk: None,
) -> tuple[FileState, FileState]:
    """Read a file once: hash it, hash it as patched, and hand on the patched bytes.

    Two buffers take turns, so that a chunk is hashed while it is written and the next is read.
    """
    from blake3 import blake3

    before, after = blake3(), blake3() if new is not None else None
    buffers = [memoryview(bytearray(_CHUNK)), memoryview(bytearray(_CHUNK))]
    waiting: list[list[Future[Any]]] = [[], []]
    position = 0
    # One thread for each hash: chunks must enter it in their order.
    with (
        source.open("rb", buffering=0) as read,
        ThreadPoolExecutor(1) as first,
        ThreadPoolExecutor(1) as second,
    ):
        for turn in itertools.cycle((0, 1)):
            for future in waiting[turn]:
                future.result()
            size = read.readinto(buffers[turn])
            if not size:
                break
            chunk = buffers[turn][:size]
            waiting[turn] = [first.submit(before.update, chunk)]
            if new is not None and after is not None:
                if (span := _span(new, position, size)) is not None:
                    waiting[turn][0].result()  # the source's bytes are hashed before they change
                    _put(chunk, old, new, span, position, source)
                waiting[turn].append(second.submit(after.update, chunk))
            write(chunk)
            position += size
    state = FileState(position, before.hexdigest())
    return state, FileState(position, after.hexdigest()) if after is not None else state


def _span(patch: BytePatch, position: int, size: int) -> slice | None:
    first, last = np.searchsorted(patch.offsets, [position, position + size])
    return slice(first, last) if first < last else None


def _put(
    chunk: memoryview,
    old: BytePatch | None,
    new: BytePatch,
    span: slice,
    position: int,
    source: Path,
) -> None:
    array: npt.NDArray[np.uint8] = np.frombuffer(chunk, dtype=np.uint8)
    where = new.offsets[span] - position
    if old is not None and not np.array_equal(array[where], old.content[span]):
        raise CheckpointError(
            f"{source.name}: changed while it was being patched; run surgeon again"
        )
    array[where] = new.content[span]


def _write_all(descriptor: int, chunk: memoryview) -> None:
    while chunk:
        chunk = chunk[os.write(descriptor, chunk) :]


def _reflink(source: Path, target: int) -> bool:
    try:
        import fcntl

        with source.open("rb") as read:
            fcntl.ioctl(target, _FICLONE, read.fileno())
    except (ImportError, OSError):  # not this platform, or not this file system
        return False
    return True
