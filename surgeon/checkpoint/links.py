"""Which links of a model directory may be followed, and which files be read."""

from __future__ import annotations

import stat
from pathlib import Path

from surgeon.errors import CheckpointError


def may_follow(directory: Path, path: Path) -> bool:
    """Tell whether a path is a file inside a directory, or in its Hugging Face cache's blobs."""
    if not path.is_file():
        return False
    target, root = path.resolve(), directory.resolve()
    # models--org--name/snapshots/REVISION links to models--org--name/blobs.
    blobs = root.parent.parent / "blobs" if root.parent.name == "snapshots" else root
    return root in target.parents or blobs in target.parents


def regular_size(path: Path) -> int:
    """Return the size of a file, or of the one that a link leads to.

    Raises:
        CheckpointError: it is missing, or is a pipe or a device, which could be read for ever.
    """
    try:
        found = path.stat()
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path}: is missing; put it back, or get the folder again"
        ) from error
    if not stat.S_ISREG(found.st_mode):
        raise CheckpointError(f"{path}: is no regular file; put the file itself there")
    return found.st_size
