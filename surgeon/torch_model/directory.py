"""A checkpoint as a directory that transformers loads: itself, or a temporary one beside it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from surgeon.checkpoint import Checkpoint
from surgeon.checkpoint.pickle_file import PickleFile
from surgeon.checkpoint.weight_files import (
    INDEX_SUFFIX,
    SAFETENSORS,
    converted_index,
    converted_name,
)

_WEIGHTS = ("*.safetensors", "*.bin", f"*{INDEX_SUFFIX}")


@contextlib.contextmanager
def loadable(checkpoint: Checkpoint) -> Iterator[Path]:
    """Yield a directory in which transformers finds the checkpoint as safetensors.

    It is the checkpoint's own where its weights have the names that transformers looks for.
    Otherwise (a pickle, or one file of several) it is a temporary one, with links to the other
    files and, of a pickle, the tensors as safetensors; it goes when the context ends.
    """
    names = [file.path.name for file in checkpoint.files]
    if SAFETENSORS in names or checkpoint.index == SAFETENSORS + INDEX_SUFFIX:
        yield checkpoint.directory
        return
    with tempfile.TemporaryDirectory(prefix="surgeon-") as folder:
        _fill(checkpoint, Path(folder))
        yield Path(folder)


def _fill(checkpoint: Checkpoint, folder: Path) -> None:
    for entry in checkpoint.directory.iterdir():
        if not any(fnmatch(entry.name, pattern) for pattern in _WEIGHTS):
            (folder / entry.name).symlink_to(entry.absolute())
    for file in checkpoint.files:
        if isinstance(file, PickleFile):
            file.write_safetensors(folder / converted_name(file.path.name))
        else:
            (folder / SAFETENSORS).symlink_to(file.path.absolute())
    if checkpoint.index is not None:
        index = (checkpoint.directory / checkpoint.index).read_bytes()
        (folder / converted_name(checkpoint.index)).write_bytes(converted_index(index))
