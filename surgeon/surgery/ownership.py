"""What of an output is surgeon's own, so that ``--force`` may remove it; all else is kept."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from surgeon.errors import SurgeonError
from surgeon.surgery.source_files import EVALUATION, EXPORT, FOLDER, PARTIAL_EVALUATION, RECORD
from surgeon.surgery.transfer import FileState, hash_file

STAGING = ".surgeon-staging"
"""How the name of what is not finished ends."""

TOKEN = 16
"""How many hexadecimal digits tell one such name from another, before that."""

Identity: TypeAlias = tuple[int, int, int, int]
"""Device, inode, size and time of the last change: what tells a file from one written since."""

# The second form is that of earlier versions.
_TEMPORARY = re.compile(
    rf"{FOLDER}/\.eval\.(json|partial\.npz)\."
    rf"([0-9a-f]{{{TOKEN}}}{re.escape(STAGING)}|[a-z0-9_]{{8}})"
)


def is_result(name: str) -> bool:
    """Whether a path in an artifact is one that ``eval`` writes to, for good or for a while."""
    return name == EVALUATION or is_unfinished(name)


def is_unfinished(name: str) -> bool:
    """Whether a path in an artifact is what an ``eval`` leaves that was interrupted or killed."""
    return name == PARTIAL_EVALUATION or _TEMPORARY.fullmatch(name) is not None


def own_files(folder: Path) -> dict[str, Identity] | None:
    """Return the files of a folder, its record last, if surgeon made each of them; else None.

    Those are what the record lists, with the recorded hashes, the record, and results of ``eval``.
    """
    found = _recorded(folder)
    if found is None:
        return None
    mark, recorded = found
    own: dict[str, Identity] = {}
    try:
        for path in sorted(folder.rglob("*")):
            name, mode = path.relative_to(folder).as_posix(), path.lstat().st_mode
            if stat.S_ISDIR(mode):
                continue
            if not stat.S_ISREG(mode) or not (name in recorded or name == mark or is_result(name)):
                return None
            own[name] = identity(path)
        for name in own.keys() & recorded.keys():
            # The size first: by it alone, most of what was changed is known without a pass over it.
            if own[name][2] != recorded[name].size or hash_file(folder / name) != recorded[name]:
                return None
    except (OSError, SurgeonError):  # cannot be read, or is being written
        return None
    own[mark] = own.pop(mark)
    return own


def has_record(folder: Path) -> bool:
    """Whether a folder has a record that can be read."""
    return _recorded(folder) is not None


def identity(path: Path) -> Identity:
    """Return what a file is known by."""
    there = path.lstat()
    return there.st_dev, there.st_ino, there.st_size, there.st_mtime_ns


def _recorded(folder: Path) -> tuple[str, Mapping[str, FileState]] | None:
    """Return the record's name and the files that it lists; None for none, or a damaged one."""
    from surgeon.surgery.record import read_record  # brings what reads a recipe

    try:
        if (folder / RECORD).is_file():
            files = read_record(folder).files
            return RECORD, {name: change.after for name, change in files.items()}
        listed = json.loads((folder / EXPORT).read_bytes())["files"]
        return EXPORT, {name: FileState(**state) for name, state in listed.items()}
    except (SurgeonError, OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
