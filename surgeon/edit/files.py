"""The files of a source directory: which go into the artifact and where, copied and hashed."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import FileIO
from pathlib import Path, PurePosixPath
from threading import Event
from typing import Literal, TypeAlias

import numpy as np

from surgeon.edit.changes import BytePatch, Splice, sort_splices
from surgeon.errors import CheckpointError, OutputError
from surgeon.model import Checkpoint
from surgeon.model.checkpoint import CONFIG
from surgeon.model.files import (
    FOLDER,
    in_module_folder,
    is_for_loader,
    matches,
    may_follow,
    regular_size,
)
from surgeon.model.pickle_file import PickleFile
from surgeon.model.weight_files import converted_name

EXPORT = f"{FOLDER}/export.json"
"""The file that makes a directory an export."""

CARD = "README.md"
ONNX_FOLDER = "onnx"
EXCISED = f"{FOLDER}/excised.safetensors"
EVALUATION = f"{FOLDER}/eval.json"
EVALUATIONS = f"{FOLDER}/evaluations"
"""The folder of the newest evaluation on each task and data set; the last is ``EVALUATION`` too."""
SOURCE_CARD = f"{FOLDER}/source/{CARD}"

_BOOKKEEPING = (".git", ".cache")

Reason: TypeAlias = Literal["weights", "links", "no files", "bookkeeping"]
"""Why a path is not in the artifact: it holds unpatched weights or the state of their training, is
a link to another place or nothing that can be copied, or the books of git and of the Hub.
"""


@dataclass(frozen=True)
class SourceFiles:
    """Which files an artifact takes over from its source.

    ``copied`` maps each path in the artifact to its path in the source, both relative and with
    ``/``. ``left_out`` are the source's paths that the artifact does not have, and why.
    """

    copied: Mapping[str, str]
    left_out: Mapping[str, Reason]


def list_source_files(checkpoint: Checkpoint) -> SourceFiles:
    """Decide for every file of a checkpoint's directory but its weights, which are patched.

    Of a weight file that is all of its model nothing beside it is taken over.

    Links are followed inside the directory, into a Hugging Face cache's blobs, and to the folder
    that a linked config.json of a model is in: whoever links a model file by file means the files
    beside it. A link to anywhere else is left out: an artifact is made to be given away.

    The source's own model card, and its folder ``surgeon`` if it is an artifact itself, go to
    ``surgeon/source/``, because the artifact brings its own. So do those of other case, such as
    readme.md: some file systems would have them be the artifact's.

    Raises:
        OutputError: a file that a loader reads would be left out, since it is such a link.
    """
    if checkpoint.alone:
        return SourceFiles({}, {})
    directory = checkpoint.directory
    weights = {file.path.name for file in checkpoint.files} | {checkpoint.index}
    copied: dict[str, str] = {}
    left_out: dict[str, Reason] = {}
    for folder, subfolders, names in os.walk(directory):
        relative = Path(folder).relative_to(directory)
        for name in [*subfolders]:
            path = (relative / name).as_posix()
            if reason := _why_no_folder(directory, path):
                left_out[f"{path}/"] = reason
                subfolders.remove(name)
        for path in ((relative / name).as_posix() for name in names):
            if path in weights:
                continue
            if reason := _why_no_file(checkpoint, path):
                left_out[path] = reason
            else:
                copied[path_of_copy(path)] = path
    for path, reason in sorted(left_out.items()):
        for_loader = is_for_loader(path) or in_module_folder(f"{path.rstrip('/')}/config.json")
        if reason == "links" and for_loader:
            raise OutputError(
                f"{directory / path}: a link that leads out of the model's directory or nowhere, "
                "and loaders read this file; put a copy in its place, or remove the link"
            )
    return SourceFiles(dict(sorted(copied.items())), dict(sorted(left_out.items())))


def _why_no_folder(directory: Path, path: str) -> Reason | None:
    if PurePosixPath(path).name in _BOOKKEEPING:
        return "bookkeeping"
    if "/" not in path and matches(path.lower(), _FOLDERS):
        return "weights"
    return "links" if (directory / path).is_symlink() else None


def _why_no_file(checkpoint: Checkpoint, path: str) -> Reason | None:
    directory, file = checkpoint.directory, checkpoint.directory / path
    if is_duplicate_weights(path):
        return "weights"
    if not file.is_file():
        return "links" if file.is_symlink() else "no files"
    # Were it no model's, a hostile link could name any JSON file as config.json, for its folder.
    of_model = isinstance(checkpoint.config.get("model_type"), str)
    beside = file.resolve().parent == (directory / CONFIG).resolve().parent
    return None if may_follow(directory, file) or (of_model and beside) else "links"


def path_in_artifact(checkpoint: Checkpoint, path: Path) -> str:
    """Return where a weight file, or the index of shards, goes in the artifact."""
    name = path.relative_to(checkpoint.directory).as_posix()
    return converted_name(name) if isinstance(checkpoint.files[0], PickleFile) else name


def path_of_copy(path: str) -> str:
    """Return where a file of the source goes in the artifact."""
    own = path.lower() == CARD.lower() or PurePosixPath(path.lower()).parts[0] == FOLDER
    return f"{FOLDER}/source/{path}" if own else path


# Formats of whole models, wherever they lie.
_ANYWHERE = (
    "*.gguf", "*.ggml", "ggml*.bin", "*.h5", "*.msgpack", "*.onnx", "*.onnx_data*", "*.tflite",
    "*.mlmodel", "weights*.npz", "model*.npz",
)  # fmt: skip
# Deeper folders hold other modules in these (a Dense layer of sentence-transformers, say).
_AT_THE_TOP = (
    "*.safetensors", "*.safetensors.index*.json", "pytorch_model*.bin", "model*.bin",
    "*.bin.index*.json", "*.pt", "*.pth", "*.ckpt*", "*.ot",
)  # fmt: skip
_MODULES = ("adapter_model*", "*_linear.pt")  # an adapter; the heads of BGE-M3
_FOLDERS = (
    "onnx", "openvino", "coreml", "gguf", "mlx", "original", "*.mlpackage", "*.mlmodelc",
    "checkpoint-[0-9]*", "global_step[0-9]*",  # what a training run saved on its way
)  # fmt: skip


def is_duplicate_weights(path: str) -> bool:
    """Whether a file, relative to the model directory, holds the model's weights once more."""
    *folders, name = PurePosixPath(path.lower()).parts
    if matches(name, _MODULES):
        return False
    return matches(name, _ANYWHERE) or (not folders and matches(name, _AT_THE_TOP))


def check_new_file(path: Path, *, force: bool, option: str = "output") -> None:
    """Refuse a file that could not be written, before anything is computed for it.

    ``option`` is what asked for it.

    Raises:
        OutputError: it is a directory, exists and ``force`` is off, or its folder takes no files.
    """
    asked = f"`{option}` {path}"
    if path.is_dir():
        raise OutputError(f"{asked}: is a directory; name a file in it")
    if os.path.lexists(path) and not force:
        raise OutputError(f"{asked}: already exists; name another, or replace it with `force=True`")
    if not path.parent.is_dir():
        raise OutputError(f"{asked}: there is no folder {path.parent}; make it first")
    try:  # some folders, such as /proc, take no files, whatever their permissions say
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise OutputError(f"{asked}: {error.strerror}; name another") from error


_PIECE = 2**20  # bytes read at a time: they fit in a core's cache
_SPAN = 2**26  # bytes that the kernel copies at a time


@dataclass(frozen=True)
class FileState:
    """A file's size in bytes and its BLAKE3 hash as hex."""

    size: int
    blake3: str


def hash_file(path: Path) -> FileState:
    """Hash a file in constant memory.

    Raises:
        CheckpointError: it is no regular file, or changed meanwhile.
    """
    return transfer(path, None)[0]


def inode(path: Path) -> tuple[int, int]:
    """Return what two names of one file have in common.

    Raises:
        CheckpointError: as ``regular_size``.
    """
    regular_size(path)
    found = path.stat()
    return found.st_dev, found.st_ino


def transfer(
    source: Path,
    target: Path | None,
    old: BytePatch | None = None,
    new: BytePatch | None = None,
    splices: Sequence[Splice] = (),
) -> tuple[FileState, FileState]:
    """Copy a file with changes, and return the states of the source and of the target.

    Without splices the target shares the source's extents where the file system can (a reflink),
    and never its inode: an edit of one must not reach the other. A link is followed.

    Args:
        source: the file to copy.
        target: where to, a new file; its folder is made (None: nowhere, only hash).
        old: what the source must hold where ``new`` goes.
        new: what to write, at offsets of the source.
        splices: spans of the source that other bytes take the place of.

    Raises:
        CheckpointError: the source does not hold ``old``, or the splices do not fit it.
    """
    regular_size(source)
    ordered, stopped = sort_splices(splices, source), Event()
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
    # The pool hashes while this thread has the kernel copy.
    with _unchanged(source), ThreadPoolExecutor(2) as pool:
        hashes = [pool.submit(_hash, source, stopped)]
        if new is not None or ordered:
            spliced = target if ordered else None
            hashes.append(pool.submit(_hash, source, stopped, spliced, old, new, ordered))
        try:
            if target is not None and not ordered:
                _copy(source, target)
            states = [hashed.result() for hashed in hashes]
        finally:
            stopped.set()
    if target is not None and new is not None and not ordered:
        overlay(new, target)
    return states[0], states[-1]


@contextlib.contextmanager
def _unchanged(path: Path) -> Iterator[None]:
    """Refuse a file that changes while the block reads it."""
    found = path.stat()
    yield
    now = path.stat()
    if (now.st_size, now.st_mtime_ns) != (found.st_size, found.st_mtime_ns):
        raise _changed(path)


def _hash(
    source: Path,
    stopped: Event,
    target: Path | None = None,
    old: BytePatch | None = None,
    new: BytePatch | None = None,
    splices: Sequence[Splice] = (),
) -> FileState:
    """Hash a file with changes, and write it so to a target if there is one."""
    from blake3 import blake3

    # One thread: BLAKE3's own would wait for a core that the copy or another hash has.
    hasher, size, position = blake3(), source.stat().st_size, 0
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(source.open("rb", buffering=0))
        written = stack.enter_context(target.open("xb")) if target else None
        for splice in (*splices, Splice(size, 0, b"")):
            for start, piece in _pieces(file, position, splice.start, stopped):
                _apply(source, old, new, start, piece)
                hasher.update(piece)
                if written:
                    written.write(piece)
            hasher.update(splice.content)
            if written:
                written.write(splice.content)
            position = splice.end
    growth = sum(len(splice.content) - splice.length for splice in splices)
    return FileState(size + growth, hasher.hexdigest())


def _pieces(file: FileIO, start: int, end: int, stopped: Event) -> Iterator[tuple[int, memoryview]]:
    """Yield a span of a file, and where each piece is; they come in the same buffer."""
    buffer = memoryview(bytearray(min(_PIECE, end - start)))
    file.seek(start)
    while not stopped.is_set() and (length := file.readinto(buffer[: end - start])):
        yield start, buffer[:length]
        start += length


def _apply(
    source: Path, old: BytePatch | None, new: BytePatch | None, start: int, piece: memoryview
) -> None:
    """Change a piece of a file as a patch says."""
    array = np.frombuffer(piece, dtype=np.uint8)
    if old is not None:
        where, expected = old.within(start, start + len(piece))
        if not np.array_equal(array[where], expected):
            raise _changed(source)
    if new is not None:
        where, content = new.within(start, start + len(piece))
        array[where] = content


def _changed(source: Path) -> CheckpointError:
    return CheckpointError(f"{source.name}: changed while it was being read; run surgeon again")


def _copy(source: Path, target: Path) -> None:
    """Make a file with the bytes of another: the kernel copies, or shares extents, as for cp."""
    # Made by this open, not cut to nothing by it: ext4 would write all of it out at the close.
    with source.open("rb", buffering=0) as read, target.open("xb") as write:
        with contextlib.suppress(AttributeError, OSError):  # no such system, or not these files
            while os.copy_file_range(read.fileno(), write.fileno(), _SPAN):
                pass
        # The rest: some file systems copy nothing and say 0, as at the end. Fails on a full disk.
        shutil.copyfileobj(read, write, _PIECE)


def overlay(patch: BytePatch, path: Path) -> None:
    """Write a patch into a file in place, touching no other byte."""
    breaks = np.flatnonzero(np.diff(patch.offsets) != 1) + 1
    runs = zip(np.split(patch.offsets, breaks), np.split(patch.content, breaks), strict=True)
    with path.open("r+b") as file:
        for offsets, content in runs:
            if len(content):
                file.seek(offsets[0])
                file.write(content.tobytes())
