"""Pointers that git-lfs leaves in place of large files, until it fetches them."""

from __future__ import annotations

from surgeon.errors import CheckpointError

_POINTER = b"version https://git-lfs"

POINTER_BYTES = len(_POINTER)
"""Bytes at the start of a file that show whether it is a pointer."""


def refuse_pointer(label: str, start: bytes) -> None:
    """Refuse a file that is a pointer by its first bytes; ``label`` names it in errors.

    Raises:
        CheckpointError: it is one.
    """
    if start.startswith(_POINTER):
        raise CheckpointError(f"{label}: is a git-LFS pointer, not the weights; run git lfs pull")
