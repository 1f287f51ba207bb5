"""Copying a file, changed or as it is, and hashing both in one pass over the bytes."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import numpy as np

from surgeon.edit.changes import BytePatch, Splice, in_order
from surgeon.errors import CheckpointError
from surgeon.model.files import regular_size

_PIECE = 2**21  # bytes read at a time: enough for the threads of BLAKE3 to share
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


def inode(path: Path) -> tuple[int, int]:
    """Return what two names of one file have in common."""
    found = path.stat()
    return found.st_dev, found.st_ino


def transfer(
    source: Path,
    target: Path | None,
    old: BytePatch | None = None,
    new: BytePatch | None = None,
    splices: Sequence[Splice] = (),
) -> tuple[FileState, FileState]:
    """Copy a file with changes, and return the states of the source and of the target.

    Without splices the target shares the source's extents where the file system can (a reflink),
    and never its inode: an edit of one must not reach the other. A link is followed.

    Args:
        source: the file to copy.
        target: where to, a new file; its folder is made (None: nowhere, only hash).
        old: what the source must hold where ``new`` goes.
        new: what to write, at offsets of the source.
        splices: spans of the source that other bytes take the place of.

    Raises:
        CheckpointError: the source does not hold ``old``, or the splices do not fit it.
    """
    from blake3 import blake3

    regular_size(source)
    found = source.stat()
    ordered = in_order(splices, source)
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        if not ordered:
            _copy(source, target)
    # By its own threads: a thread of ours that hashed during the copy took a fifth longer in all.
    before, after = (blake3(max_threads=blake3.AUTO) for _ in range(2))
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(source.open("rb", buffering=0))
        written = stack.enter_context(target.open("xb")) if target and ordered else None

        def emit(content: bytes | memoryview) -> None:
            after.update(content)
            if written:
                written.write(content)

        position = 0
        for splice in (*ordered, Splice(found.st_size, 0, b"")):
            for start, piece in _pieces(file, position, splice.start):
                before.update(piece)
                if new or ordered:
                    _apply(source, old, new, start, piece)
                    emit(piece)
            for _, piece in _pieces(file, splice.start, splice.end):
                before.update(piece)
            emit(splice.content)
            position = splice.end
    now = source.stat()
    if (now.st_size, now.st_mtime_ns) != (found.st_size, found.st_mtime_ns):
        raise _changed(source)
    if target is not None and new is not None and not ordered:
        overlay(new, target)
    state = FileState(found.st_size, before.hexdigest())
    if not (new or ordered):
        return state, state
    growth = sum(len(splice.content) - splice.length for splice in ordered)
    return state, FileState(found.st_size + growth, after.hexdigest())


def _pieces(file: FileIO, start: int, end: int) -> Iterator[tuple[int, memoryview]]:
    """Yield a span of a file, and where each piece is; they come in the same buffer."""
    buffer = memoryview(bytearray(min(_PIECE, end - start)))
    file.seek(start)
    while start < end and (length := file.readinto(buffer[: end - start])):
        yield start, buffer[:length]
        start += length


def _apply(
    source: Path, old: BytePatch | None, new: BytePatch | None, start: int, piece: memoryview
) -> None:
    """Change a piece of a file as a patch says."""
    array = np.frombuffer(piece, dtype=np.uint8)
    if old is not None:
        where, expected = old.within(start, start + len(piece))
        if not np.array_equal(array[where], expected):
            raise _changed(source)
    if new is not None:
        where, content = new.within(start, start + len(piece))
        array[where] = content


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


def overlay(patch: BytePatch, path: Path) -> None:
    """Write a patch into a file in place, touching no other byte."""
    breaks = np.flatnonzero(np.diff(patch.offsets) != 1) + 1
    runs = zip(np.split(patch.offsets, breaks), np.split(patch.content, breaks), strict=True)
    with path.open("r+b") as file:
        for offsets, content in runs:
            if len(content):
                file.seek(offsets[0])
                file.write(content.tobytes())
