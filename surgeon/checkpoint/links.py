"""Which links of a model directory may be followed."""

from __future__ import annotations

from pathlib import Path


def may_follow(directory: Path, path: Path) -> bool:
    """Tell whether a path is a file inside a directory, or in its Hugging Face cache's blobs."""
    if not path.is_file():
        return False
    target, root = path.resolve(), directory.resolve()
    # models--org--name/snapshots/REVISION links to models--org--name/blobs.
    blobs = root.parent.parent / "blobs" if root.parent.name == "snapshots" else root
    return root in target.parents or blobs in target.parents
