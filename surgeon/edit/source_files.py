"""The files of a source directory: which go into the artifact, and where."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias

from surgeon.errors import OutputError
from surgeon.model import Checkpoint
from surgeon.model.artifact import FOLDER
from surgeon.model.checkpoint import CONFIG
from surgeon.model.files import in_module_folder, is_for_loader, may_follow
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
PARTIAL_EVALUATION = f"{FOLDER}/eval.partial.safetensors"
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
    ``surgeon/source/``, because the artifact brings its own.

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
                copied[place(path)] = path
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
    if "/" not in path and _matches(path.lower(), _FOLDERS):
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


def place(path: str) -> str:
    """Return where a file of the source goes in the artifact."""
    own = path == CARD or PurePosixPath(path).parts[0] == FOLDER
    return f"{FOLDER}/source/{path}" if own else path


# Formats of whole models, wherever they lie.
_ANYWHERE = (
    "*.gguf", "*.ggml", "ggml*.bin", "*.h5", "*.msgpack", "*.onnx", "*.onnx_data*", "*.tflite",
    "*.mlmodel", "weights*.npz", "model*.npz",
)  # fmt: skip
# Deeper folders hold other modules in these (a Dense layer of sentence-transformers, say).
_AT_THE_TOP = (
    "*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "model*.bin",
    "*.bin.index.json", "*.pt", "*.pth", "*.ckpt", "*.ot",
)  # fmt: skip
_MODULES = ("adapter_model*", "*_linear.pt")  # an adapter; the heads of BGE-M3
_FOLDERS = (
    "onnx", "openvino", "coreml", "gguf", "mlx", "original", "*.mlpackage", "*.mlmodelc",
    "checkpoint-[0-9]*", "global_step[0-9]*",  # what a training run saved on its way
)  # fmt: skip


def is_duplicate_weights(path: str) -> bool:
    """Whether a file, relative to the model directory, holds the model's weights once more."""
    *folders, name = PurePosixPath(path.lower()).parts
    if _matches(name, _MODULES) or FOLDER in folders[:1]:
        return False
    return _matches(name, _ANYWHERE) or (not folders and _matches(name, _AT_THE_TOP))


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
