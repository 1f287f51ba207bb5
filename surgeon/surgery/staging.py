"""An output directory that appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from surgeon.errors import OutputError


def check_output(output: Path, source: Path, *, force: bool) -> None:
    """Refuse an output that would lose something.

    Raises:
        OutputError: it is the source, lies inside it or holds it; it exists and ``force`` is
            off; or the directory it is to appear in does not take new files.
    """
    target, origin = output.resolve(), source.resolve()
    if target == origin or origin in target.parents:
        raise OutputError(f"-o {output}: is the source or inside it; name a directory elsewhere")
    if target in origin.parents:
        raise OutputError(f"-o {output}: holds the source; name a directory elsewhere")
    if os.path.lexists(output) and not force:
        raise OutputError(f"-o {output}: already exists; name another, or replace it with --force")
    existing = next(parent for parent in target.parents if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(f"-o {output}: {existing} is no directory that can be written to")


@contextlib.contextmanager
def staged(output: Path, own_mark: str) -> Iterator[Path]:
    """Yield a hidden sibling directory that becomes ``output`` when the block ends well.

    All files are flushed to the disk before the rename. If the block fails, the sibling and every
    parent made for it are removed. An existing output is replaced if it has the file
    ``own_mark``, that is, if surgeon made it; anything else is moved aside to ``OUTPUT.replaced``
    and kept.
    """
    target = output.resolve()
    made = [parent for parent in target.parents if not parent.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield staging
        staging.chmod(0o777 & ~_umask())
        _flush(staging)
        _swap(staging, target, own_mark)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        for parent in made:
            with contextlib.suppress(OSError):  # somebody else put a file there meanwhile
                parent.rmdir()
        raise


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that it is seen whole, old or new, at every moment."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o666 & ~_umask())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _swap(staging: Path, target: Path, own_mark: str) -> None:
    if not os.path.lexists(target):
        staging.rename(target)
    elif (target / own_mark).is_file() and not target.is_symlink():
        retired = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        target.rename(retired / target.name)
        try:
            staging.rename(target)
        except BaseException:
            (retired / target.name).rename(target)
            retired.rmdir()
            raise
        shutil.rmtree(retired, ignore_errors=True)
    else:
        target.rename(_free_name(target))
        staging.rename(target)
    _sync(target.parent)


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
