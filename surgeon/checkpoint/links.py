"""Which links of a model directory may be followed, and which files be read."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from surgeon.errors import CheckpointError

_SHARED_MARK = ".huggingface-shared-blobs"  # huggingface_hub puts it in a store of its own


def may_follow(directory: Path, path: Path) -> bool:
    """Tell whether a path is a file in a directory, or where its Hugging Face cache keeps content.

    That is ``models--org--name/blobs`` for ``models--org--name/snapshots/COMMIT``, whose entries
    lead on to ``blobs`` of the cache, which all repositories share, where a file is in Xet.
    """
    if not path.is_file():
        return False
    target, root = path.resolve(), directory.resolve()
    return any(place in target.parents for place in (root, *_stores(root)))


def _stores(root: Path) -> Iterator[Path]:
    if root.parent.name != "snapshots":
        return
    repository = root.parent.parent
    yield (repository / "blobs").resolve()
    shared = repository.parent / "blobs"
    if repository.name.startswith("models--") and (shared / _SHARED_MARK).is_file():
        yield shared.resolve()


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
