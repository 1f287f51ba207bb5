"""Which files of a model directory may be opened, and which of its links followed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from surgeon.errors import CheckpointError


def regular_file(path: Path) -> os.stat_result:
    """Return the facts of a file, before it is opened: a pipe or a device may have no end.

    Raises:
        CheckpointError: it is no regular file, nor a link to one.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise CheckpointError(f"{path}: not a regular file; put the file itself there")
    return found


def may_follow(directory: Path, path: Path) -> bool:
    """Tell whether a path is a file inside a directory, or in its Hugging Face cache's blobs."""
    if not path.is_file():
        return False
    target, root = path.resolve(), directory.resolve()
    # models--org--name/snapshots/REVISION links to models--org--name/blobs.
    blobs = root.parent.parent / "blobs" if root.parent.name == "snapshots" else root
    return root in target.parents or blobs in target.parents
