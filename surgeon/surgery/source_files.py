"""The files of a source directory: which go into the artifact, and where; copying them."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

FOLDER = "surgeon"
"""The folder inside an artifact that holds all that surgeon adds for itself."""

CARD = "README.md"
ONNX_FOLDER = "onnx"

# Weights in other formats. An unpatched twin in a patched folder is a trap: a loader may take it.
_TWIN_FILES = (
    "*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "*.bin.index.json",
    "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.ot", "*.gguf", "*.ggml", "*.onnx",
    "*.onnx_data", "*.tflite", "*.mlmodel",
)  # fmt: skip
_TWIN_FOLDERS = (ONNX_FOLDER, "openvino", "coreml", "gguf", "original")
_BOOKKEEPING = (".git", ".cache")

# What copy_file_range answers where it does not work: other kernel, other file system, odd file.
_NOT_SUPPORTED = (errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)
_FICLONE = 0x40049409  # ioctl of Linux: share the extents of another file (man ioctl_ficlone)


@dataclass(frozen=True)
class SourceFiles:
    """Which files an artifact takes over from its source.

    ``copied`` maps each path in the artifact to its path in the source, both relative and with
    ``/``. ``left_out`` are the source's paths that the artifact does not have.
    """

    copied: dict[str, str]
    left_out: tuple[str, ...]


def list_source_files(directory: Path, weights: str) -> SourceFiles:
    """Decide for every file of a source directory; ``weights`` is the file that is patched.

    The source's own model card, and its folder ``surgeon`` if it is an artifact itself, go to
    ``surgeon/source/``, because the artifact brings its own.
    """
    copied: dict[str, str] = {}
    left_out: list[str] = []
    for folder, names, files in os.walk(directory):
        relative = Path(folder).relative_to(directory)
        for name in sorted(names):
            path = (relative / name).as_posix()
            if path in _TWIN_FOLDERS or name in _BOOKKEEPING or (directory / path).is_symlink():
                left_out.append(f"{path}/")
                names.remove(name)
        names.sort()
        for name in sorted(files):
            path = (relative / name).as_posix()
            if path == weights:
                continue
            if _is_twin(path) or not (directory / path).is_file():
                left_out.append(path)
            else:
                copied[_place(path)] = path
    return SourceFiles(dict(sorted(copied.items())), tuple(sorted(left_out)))


def copy_file(source: Path, target: Path) -> None:
    """Copy a file's content the cheapest way the file system has.

    Tries a reflink, then ``copy_file_range``, then plain reading and writing. A link is followed:
    the copy is a file of its own, never a second name of the source.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as read, target.open("wb") as write:
        if not (
            _reflink(read.fileno(), write.fileno()) or _copy_range(read.fileno(), write.fileno())
        ):
            read.seek(0)
            write.truncate(0)
            shutil.copyfileobj(read, write, 16 * 2**20)


def _is_twin(path: str) -> bool:
    # Deeper folders hold other modules (a Dense layer of sentence-transformers, say), not twins.
    return "/" not in path and any(fnmatch(path, pattern) for pattern in _TWIN_FILES)


def _place(path: str) -> str:
    own = path == CARD or PurePosixPath(path).parts[0] == FOLDER
    return f"{FOLDER}/source/{path}" if own else path


def _reflink(source: int, target: int) -> bool:
    try:
        import fcntl

        fcntl.ioctl(target, _FICLONE, source)
    except (ImportError, OSError):  # not this platform, or not this file system
        return False
    return True


def _copy_range(source: int, target: int) -> bool:
    if not hasattr(os, "copy_file_range"):  # Linux only
        return False
    remaining = os.fstat(source).st_size
    try:
        while remaining:
            copied = os.copy_file_range(source, target, min(remaining, 2**30))
            if copied == 0:
                return False
            remaining -= copied
    except OSError as error:
        if error.errno in _NOT_SUPPORTED:
            return False
        raise
    return True
