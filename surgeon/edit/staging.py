"""An output, a directory or a file, that appears whole or not at all, and loses nothing."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import logging
import os
import platform
import re
import secrets
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TypeAlias

from surgeon.edit import disk
from surgeon.edit.files import EXPORT, FileState, hash_file
from surgeon.errors import OutputError, SurgeonError
from surgeon.model.files import FOLDER, RECORD, may_follow

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says where a file system takes no more."""

_NAME_BYTES = 255  # of a name, on every file system in use
_STAGING = ".surgeon-staging"  # how the name of what is not finished ends
_TOKEN = 16  # hexadecimal digits before that, which make such a name unique
# What eval leaves that is interrupted or killed; earlier versions had one file for all tasks, .npz,
# and the last form.
_PARTIAL = r"eval\.partial\.([\w-]+\.)?(npz|safetensors)"
_RESULT = r"eval\.json|evaluations/\w[^/]*-[0-9a-f]{8}\.json"
_UNFINISHED = re.compile(
    rf"{FOLDER}/({_PARTIAL}|(\.eval\.json|\.{_PARTIAL}|evaluations/\.[^/]+\.json)\."
    rf"([0-9a-f]{{{_TOKEN}}}{re.escape(_STAGING)}|[a-z0-9_]{{8}}))"
)
_log = logging.getLogger(__name__)

# Device, inode, size and time of the last change: what distinguishes a file from one written since.
_Identity: TypeAlias = tuple[int, int, int, int]


def check_output(output: Path, source: Path, *, force: bool) -> None:
    """Refuse an output, a directory or a file, that would lose something.

    Raises:
        OutputError: it is the source or a file that a link in it leads to, lies inside it or holds
            it; it exists and ``force`` is off; or the directory it is to appear in does not take
            new files.
    """
    target = output.resolve()
    # Of a snapshot in the Hub's cache, each file lies elsewhere.
    within = [path for path in source.iterdir() if path.is_file()] if source.is_dir() else []
    origins = [path.resolve() for path in (source, *within)]
    above = {parent for path in origins for parent in path.parents}
    above.update((source.parent.resolve() / source.name).parents)  # of a link, too
    if not _inodes(*origins).isdisjoint(_inodes(target, *target.parents)):
        raise OutputError(f"`output` {output}: is the source or inside it; name a place elsewhere")
    if not _inodes(target).isdisjoint(_inodes(*above)):
        raise OutputError(f"`output` {output}: holds the source; name a place elsewhere")
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        output.lstat()  # a name that is too long is an error already here
        if not force:
            raise OutputError(
                f"`output` {output}: already exists; name another, or replace it with `force=True`"
            )
    existing = next(parent for parent in target.parents if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(f"`output` {output}: {existing} is no directory that can be written to")


def _inodes(*paths: Path) -> set[tuple[int, int]]:
    """Return what identifies those that exist: OUT may be out, or one folder be mounted twice."""
    return {(there.st_dev, there.st_ino) for there in (p.stat() for p in paths if p.exists())}


@contextlib.contextmanager
def staged(output: Path, *, force: bool) -> Iterator[Path]:
    """Yield a hidden sibling directory that becomes ``output`` when the block ends well.

    A process that is killed leaves ``output`` absent or whole; the hidden siblings that killed ones
    left behind are removed here. If the block fails, its sibling and every parent made for it are
    removed.

    What is at ``output`` by then is replaced with ``force`` alone. An artifact or export of which
    surgeon made every file is removed; anything else is moved to ``OUTPUT.replaced``, whole, and
    the log says so. Only then, because something may be lost, the new files are flushed to the disk
    before. A new output is left to the system's write-back, as ``cp`` leaves it: the source still
    exists, and ``surgeon verify`` shows whether the artifact outlived a loss of power.

    Raises:
        OutputError: something has appeared at ``output`` meanwhile, and ``force`` is off.
    """
    target = output.resolve()
    made = [parent for parent in target.parents if not parent.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _hidden(output, target, is_folder=True) as staging:
            yield staging
            if not _published_new(staging, target, output, force=force):
                for path in (*sorted(staging.rglob("*")), staging):
                    disk.sync(path)
                with _locked(target):  # so that nobody takes what is removed for abandoned
                    _replace(staging, target, output, _own_files(target))
    except BaseException:
        for parent in made:
            with contextlib.suppress(OSError):  # somebody else put a file there meanwhile
                parent.rmdir()
        raise


def anything(path: Path) -> bool:  # noqa: ARG001  (one of the answers to whether to replace it)
    """Say yes: for files that surgeon alone writes, such as those inside an artifact."""
    return True


def replace_file(
    path: Path, content: bytes, ours: Callable[[Path], bool] | None = anything
) -> None:
    """Write a file so that it is seen whole, old or new, at every moment; see ``staged_file``."""
    with staged_file(path, ours) as staging:
        staging.write_bytes(content)


@contextlib.contextmanager
def staged_file(path: Path, ours: Callable[[Path], bool] | None = anything) -> Iterator[Path]:
    """Yield a hidden, empty file beside ``path`` that takes its place when the block ends well.

    It is flushed to the disk before. If the block fails, it is removed, and ``path`` is as it was.

    Args:
        path: the file to make.
        ours: whether a file may be replaced; one that may not is moved to ``PATH.replaced``, and
            the log says so. None: nothing may be replaced or moved.

    Raises:
        OutputError: something is at ``path``, and ``ours`` is None.
    """
    with _hidden(path, path, is_folder=False) as staging:
        yield staging
        disk.sync(staging)
        if _published_new(staging, path, path, force=ours is not None):
            return
        if path.is_dir() or (ours is not None and ours(path)):
            disk.replace(staging, path)  # which refuses a directory
        else:
            _replace(staging, path, path, None)


def _published_new(staging: Path, target: Path, output: Path, *, force: bool) -> bool:
    """Publish where nothing is; False where something is that ``force`` allows to replace."""
    try:
        # Without a flush of the parent, which would make the file system flush the files too.
        disk.rename_new(staging, target)
    except FileExistsError as error:
        if force:
            return False
        raise OutputError(
            f"`output` {output}: has appeared meanwhile and was left as it is; name another, or "
            "replace it with `force=True`"
        ) from error
    return True


@contextlib.contextmanager
def _hidden(output: Path, target: Path, *, is_folder: bool) -> Iterator[Path]:
    """Yield a new hidden file or folder beside ``target``; if the block fails, it is removed.

    It is locked meanwhile, by which other processes know that it is not abandoned.
    """
    _remove_abandoned(target)
    staging, lock = _make_hidden(output, target, is_folder=is_folder)
    try:
        yield staging
    except BaseException as error:
        _name(error, staging, output)
        # By what they are, not by their names: these may have been exchanged with those of others.
        for path in (staging, *target.parent.glob(f"{glob.escape(_replaced_stem(target))}*")):
            if _is_open_as(lock, path):
                disk.remove(path)
        raise
    finally:
        os.close(lock)


def _make_hidden(output: Path, target: Path, *, is_folder: bool) -> tuple[Path, int]:
    """Make a hidden file or folder, locked until its descriptor is closed or the process ends."""
    if sys.platform == "win32":  # which opens no folder, and renames nothing that is open
        raise OutputError(f"`output` {output}: surgeon does not write on Windows; run it in WSL")
    while True:
        token = _host() + secrets.token_hex(8)[4:]
        path = target.with_name(f"{_hidden_stem(target)}{token}{_STAGING}")
        try:
            # With the modes, groups and rights that the parent and the umask give to any other.
            if is_folder:
                path.mkdir()
            else:
                path.touch(exist_ok=False)
        except OSError as error:
            _name(error, path, output)
            raise
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
            disk.lock(lock, wait=True)
            if _is_open_as(lock, path):
                return path, lock
            os.close(lock)
        # Another process found it before it was locked, and took it to be abandoned.


def _name(error: BaseException, staging: Path, output: Path) -> None:
    """Have an error name what a person asked for, in place of what stands for it meanwhile."""
    if isinstance(error, OSError):
        if isinstance(error.filename, str):
            error.filename = error.filename.replace(str(staging), str(output))
        elif error.errno in FULL:  # a failed write does not say of which file
            error.filename = str(output)
    elif isinstance(error, SurgeonError):
        error.args = tuple(str(part).replace(str(staging), str(output)) for part in error.args)


def _replace(
    staging: Path, target: Path, output: Path, own: Mapping[str, _Identity] | None
) -> None:
    """Put ``staging`` in the place of what is at ``target``, and that aside if not ``own``."""
    retired, aside = staging, _free_name(target)
    if own is None:  # what is somebody's own no kill may leave hidden
        disk.rename_new(staging, aside)
        retired = aside
    if not disk.exchange(retired, target):
        if own is None:
            disk.rename_new(aside, staging)
        retired = aside
        disk.rename_new(target, aside)
        try:
            disk.rename_new(staging, target)
        except BaseException:
            if not os.path.lexists(target):
                disk.rename_new(aside, target)
            raise
    disk.sync(target.parent)
    if own is None or not _discarded(retired, own):
        _keep(retired, target, output)


def _discarded(folder: Path, own: Mapping[str, _Identity]) -> bool:
    """Remove an output of surgeon's; False if there is more in it, or else, than was looked at.

    Its record goes last, so that what a kill leaves of it is known again.
    """
    *others, mark = own
    for name in others:
        if os.path.lexists(folder / name) and _identity(folder / name) == own[name]:
            disk.remove(folder / name)
    left = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    if any(path != folder / mark for path in left):
        return False
    disk.remove(folder)
    return True


def _keep(retired: Path, target: Path, output: Path) -> None:
    """Give what is not surgeon's alone a name of its own beside ``target``, and say so."""
    if not retired.name.startswith(_replaced_stem(target)):
        aside = _free_name(target)
        disk.rename_new(retired, aside)
        retired = aside
    _log.warning("%s: not all there was made by surgeon, so it was moved to %s", output, retired)


def _remove_abandoned(target: Path) -> None:
    """Remove what processes left beside ``target`` before it was finished, and hold no more.

    That is for this output, or for others by processes of this machine.
    """
    patterns = f"{glob.escape(_hidden_stem(target))}*{_STAGING}", f".*.{_host()}*{_STAGING}"
    for path in {path for pattern in patterns for path in target.parent.glob(pattern)}:
        with _locked(path) as locked:
            if not locked:
                continue
            own = _own_files(path)
            if own is None and _recorded(path) is None:
                disk.remove(path)
            elif own is None or not _discarded(path, own):  # somebody put a file there
                replaced = path.with_name(path.name.removeprefix(".").rsplit(".", 2)[0])
                _keep(path, replaced, replaced)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Lock what is at a path for the length of a block; yields whether that could be."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:  # gone meanwhile, a link, or not ours to read
        yield False
        return
    try:
        yield disk.lock(descriptor, wait=False) or False
    finally:
        os.close(descriptor)


def _is_open_as(descriptor: int, path: Path) -> bool:
    """Whether a path leads to what is open."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except OSError:
        return False


@cache
def _host() -> str:
    """Return four digits that stand for this machine: locks may be unknown to another one."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:4]


def _hidden_stem(target: Path) -> str:
    return f".{_cut(target.name, 2 + _TOKEN + len(_STAGING))}."


def _replaced_stem(target: Path) -> str:
    return f"{_cut(target.name, 16)}.replaced"


def _free_name(target: Path) -> Path:
    names = (f"{_replaced_stem(target)}{number or ''}" for number in range(1_000_000))
    return next(target.with_name(n) for n in names if not os.path.lexists(target.with_name(n)))


def _cut(name: str, room: int) -> str:
    """Shorten a name so that what goes around it, of ``room`` bytes, makes no name too long."""
    while len(os.fsencode(name)) > _NAME_BYTES - room:
        name = name[:-1]
    return name


def is_result(name: str) -> bool:
    """Whether a path in an artifact is one that ``eval`` writes to, for good or for a while."""
    return re.fullmatch(f"{FOLDER}/({_RESULT})", name) is not None or is_unfinished(name)


def is_unfinished(name: str) -> bool:
    """Whether a path in an artifact is what an ``eval`` leaves that was interrupted or killed."""
    return _UNFINISHED.fullmatch(name) is not None


def _own_files(folder: Path) -> dict[str, _Identity] | None:
    """Return the files of a folder, its record last, if surgeon made each of them; else None.

    Those are what the record lists, with the recorded hashes, the record, and results of ``eval``.
    """
    found = _recorded(folder)
    if found is None:
        return None
    mark, recorded = found
    own: dict[str, _Identity] = {}
    try:
        for path in sorted(folder.rglob("*")):
            name, mode = path.relative_to(folder).as_posix(), path.lstat().st_mode
            if stat.S_ISDIR(mode):
                continue
            if stat.S_ISLNK(mode) and name in recorded and may_follow(folder, path):
                mode = path.stat().st_mode  # of weights, which the graph has too
            if not stat.S_ISREG(mode) or not (name in recorded or name == mark or is_result(name)):
                return None
            own[name] = _identity(path)
        for name in own.keys() & recorded.keys():
            # The size first: by it alone, most of what was changed is known without a pass over it.
            size = (folder / name).stat().st_size
            if size != recorded[name].size or hash_file(folder / name) != recorded[name]:
                return None
    except (OSError, SurgeonError):  # cannot be read, or is being written
        return None
    own[mark] = own.pop(mark)
    return own


def _identity(path: Path) -> _Identity:
    there = path.lstat()
    return there.st_dev, there.st_ino, there.st_size, there.st_mtime_ns


def _recorded(folder: Path) -> tuple[str, Mapping[str, FileState]] | None:
    """Return the record's name and the files that it lists; None for none, or a damaged one."""
    from surgeon.edit.record import read_record  # brings what reads a recipe

    try:
        if (folder / RECORD).is_file():
            files = read_record(folder).files
            return RECORD, {name: change.after for name, change in files.items()}
        listed = json.loads((folder / EXPORT).read_bytes())["files"]
        return EXPORT, {name: FileState(**state) for name, state in listed.items()}
    except (SurgeonError, OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
