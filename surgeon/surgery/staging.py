"""An output directory that appears whole or not at all."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from surgeon.errors import OutputError, SurgeonError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says where a file system takes no more."""

_MARK = ".surgeon-staging"
_HERE = -100  # AT_FDCWD of Linux: paths are relative to the working directory
_EXCHANGE = 2  # RENAME_EXCHANGE


def check_output(output: Path, source: Path, *, force: bool) -> None:
    """Refuse an output, a directory or a file, that would lose something.

    Raises:
        OutputError: it is the source, lies inside it or holds it; it exists and ``force`` is
            off; or the directory it is to appear in does not take new files.
    """
    target, origin = output.resolve(), source.resolve()
    if target == origin or origin in target.parents:
        raise OutputError(f"-o {output}: is the source or inside it; name a place elsewhere")
    if target in origin.parents:
        raise OutputError(f"-o {output}: holds the source; name a place elsewhere")
    if os.path.lexists(output) and not force:
        raise OutputError(f"-o {output}: already exists; name another, or replace it with --force")
    existing = next(parent for parent in target.parents if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(f"-o {output}: {existing} is no directory that can be written to")


@contextlib.contextmanager
def staged(output: Path, own_mark: str) -> Iterator[Path]:
    """Yield a hidden sibling directory that becomes ``output`` when the block ends well.

    The rename is atomic, so a process that is killed leaves ``output`` absent or whole; the
    siblings that killed ones left behind are removed here. If the block fails, its sibling and
    every parent made for it are removed. An existing output is replaced if it has the file
    ``own_mark``, that is, if surgeon made it; anything else is moved aside to ``OUTPUT.replaced``
    and kept. Only then, because something may be lost, the new files are flushed to the disk
    before. A new output is left to the system's write-back, as ``cp`` leaves it: the source is
    there, and ``surgeon verify`` tells whether the artifact outlived a loss of power.
    """
    target = output.resolve()
    made = [parent for parent in target.parents if not parent.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(target)
    staging, lock = _make_staging(target)
    try:
        yield staging
        staging.chmod(0o777 & ~_umask())
        if os.path.lexists(target):
            _flush(staging)
        _swap(staging, target, own_mark)
    except BaseException as error:
        _name(error, staging, output)
        shutil.rmtree(staging, ignore_errors=True)
        for parent in made:
            with contextlib.suppress(OSError):  # somebody else put a file there meanwhile
                parent.rmdir()
        raise
    finally:
        os.close(lock)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that it is seen whole, old or new, at every moment."""
    with staged_file(path) as staging, staging.open("wb") as file:
        file.write(content)


@contextlib.contextmanager
def staged_file(path: Path) -> Iterator[Path]:
    """Yield a hidden, empty file beside ``path`` that takes its place when the block ends well.

    It is flushed to the disk before. If the block fails, it is removed, and ``path`` is as it was.
    """
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        error.filename = str(path)
        raise
    os.close(handle)
    try:
        yield Path(name)
        _sync(Path(name))
        Path(name).chmod(0o666 & ~_umask())
        Path(name).replace(path)
    except BaseException as error:
        _name(error, Path(name), path)
        Path(name).unlink(missing_ok=True)
        raise


def _name(error: BaseException, staging: Path, output: Path) -> None:
    """Have an error name what a person asked for, in place of what stands for it meanwhile."""
    if isinstance(error, OSError):
        if isinstance(error.filename, str):
            error.filename = error.filename.replace(str(staging), str(output))
        elif error.errno in FULL:  # a failed write does not say of which file
            error.filename = str(output)
    elif isinstance(error, SurgeonError):
        error.args = tuple(str(part).replace(str(staging), str(output)) for part in error.args)


def _swap(staging: Path, target: Path, own_mark: str) -> None:
    if not os.path.lexists(target):
        staging.rename(target)
        return  # a flush of the directory alone would make the file system flush the files too
    if (target / own_mark).is_file() and not target.is_symlink():
        _replace(staging, target)
    else:
        target.rename(_free_name(target))
        staging.rename(target)
    _sync(target.parent)


def _replace(staging: Path, target: Path) -> None:
    """Put ``staging`` in the place of an artifact, and remove that."""
    if _exchange(staging, target):
        shutil.rmtree(staging, ignore_errors=True)
        return
    retired = _free_name(target)
    target.rename(retired)
    try:
        staging.rename(target)
    except BaseException:
        retired.rename(target)
        raise
    shutil.rmtree(retired, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two paths at once (Linux, ``man 2 renameat2``); False where that is not possible."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        names = os.fsencode(one), os.fsencode(other)
        return bool(libc.renameat2(_HERE, names[0], _HERE, names[1], _EXCHANGE) == 0)
    except (OSError, AttributeError, TypeError):  # another system, or an older C library
        return False


def _make_staging(target: Path) -> tuple[Path, int]:
    """Make a staging directory, and lock it until its descriptor is closed or the process ends."""
    while True:
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=_MARK, dir=target.parent))
        descriptor = os.open(staging, os.O_RDONLY)
        _lock(descriptor, wait=True)
        if staging.exists():  # else another process found it before it was locked
            return staging, descriptor
        os.close(descriptor)


def _remove_abandoned(target: Path) -> None:
    """Remove the staging directories of this target that no process holds any more."""
    for folder in target.parent.glob(f".{glob.escape(target.name)}.*{_MARK}"):
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:  # gone meanwhile, not a directory, or not ours to read
            continue
        try:
            if _lock(descriptor, wait=False):
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)


def _lock(descriptor: int, *, wait: bool) -> bool:
    """Lock an open directory; False where somebody holds it, or the file system has no locks."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except (ImportError, OSError):
        return False
    return True


def _free_name(target: Path) -> Path:
    names = (f"{target.name}.replaced{number or ''}" for number in range(1_000_000))
    return next(target.with_name(n) for n in names if not os.path.lexists(target.with_name(n)))


def _flush(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    # The umask can only be read by setting it; this runs in one thread.
    mask = os.umask(0)
    os.umask(mask)
    return mask
