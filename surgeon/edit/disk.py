"""The few calls by which files and folders appear under their names, change places and go.

Whatever publishes or removes an output does it through these: a test ends the process at each.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from pathlib import Path

_HERE = -100  # AT_FDCWD of Linux: paths are relative to the working directory
_NO_REPLACE, _EXCHANGE = 1, 2  # RENAME_NOREPLACE and RENAME_EXCHANGE


def rename_new(source: Path, target: Path) -> None:
    """Rename a file or a folder; what is at ``target`` is never replaced.

    Raises:
        FileExistsError: there is something, a broken link included.
    """
    if _renameat2(source, target, _NO_REPLACE):
        return
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    if not _linked(source, target):
        source.rename(target)  # of a folder, this replaces an empty one at most


def exchange(one: Path, other: Path) -> bool:
    """Exchange what is at two paths, at once; False where the system cannot."""
    return _renameat2(one, other, _EXCHANGE)


def replace(source: Path, target: Path) -> None:
    """Rename a file, and replace the one that is at ``target``."""
    source.replace(target)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it; nothing need be there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Have the system write a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock(descriptor: int, *, wait: bool) -> bool | None:
    """Lock an open file or folder until it is closed; False where somebody else has it.

    None where the system, or the file system, has no locks.
    """
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return None
    return True


def _renameat2(source: Path, target: Path, flag: int) -> bool:
    """Rename by the call of Linux that has flags (man 2 renameat2).

    False where that is not possible: on another system, with an older C library, on a file system
    without it, or for a reason that the error of a plain rename states better.
    """
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    return bool(call(_HERE, os.fsencode(source), _HERE, os.fsencode(target), flag) == 0)


def _linked(source: Path, target: Path) -> bool:
    """Rename a file by a second name; False of a folder, and where there are no hard links."""
    try:
        target.hardlink_to(source)
    except FileExistsError:
        raise
    except OSError:
        return False
    source.unlink()
    return True
