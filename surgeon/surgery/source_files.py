"""The files of a source directory: which go into the artifact, and where."""

from __future__ import annotations

import os
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from surgeon.checkpoint import Checkpoint, artifact
from surgeon.checkpoint.links import may_follow

FOLDER = artifact.FOLDER
RECORD = artifact.RECORD
CARD = "README.md"
ONNX_FOLDER = "onnx"
EXCISED = f"{FOLDER}/excised.safetensors"
EVALUATION = f"{FOLDER}/eval.json"
PARTIAL_EVALUATION = f"{FOLDER}/eval.partial.npz"
SOURCE_CARD = f"{FOLDER}/source/{CARD}"

# Weights in other formats. An unpatched twin in a patched folder is a trap: a loader may take it.
_TWIN_FILES = (
    "*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "*.bin.index.json",
    "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.ot", "*.gguf", "*.ggml", "*.onnx",
    "*.onnx_data", "*.tflite", "*.mlmodel",
)  # fmt: skip
_TWIN_FOLDERS = (ONNX_FOLDER, "openvino", "coreml", "gguf", "original")
_BOOKKEEPING = (".git", ".cache")


@dataclass(frozen=True)
class SourceFiles:
    """Which files an artifact takes over from its source.

    ``copied`` maps each path in the artifact to its path in the source, both relative and with
    ``/``. ``left_out`` are the source's paths that the artifact does not have.
    """

    copied: dict[str, str]
    left_out: tuple[str, ...]


def list_source_files(checkpoint: Checkpoint) -> SourceFiles:
    """Decide for every file of a checkpoint's directory but its weights, which are patched.

    Of a weight file that is all of its model nothing beside it is taken over.

    Links are followed inside the directory and into a Hugging Face cache's blobs. A link to
    anywhere else is left out: an artifact is made to be given away.

    The source's own model card, and its folder ``surgeon`` if it is an artifact itself, go to
    ``surgeon/source/``, because the artifact brings its own.
    """
    if checkpoint.alone:
        return SourceFiles({}, ())
    directory = checkpoint.directory
    weights = {file.path.name for file in checkpoint.files} | {checkpoint.index}
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
            if path in weights:
                continue
            if is_twin(path) or not may_follow(directory, directory / path):
                left_out.append(path)
            else:
                copied[place(path)] = path
    return SourceFiles(dict(sorted(copied.items())), tuple(sorted(left_out)))


def is_twin(path: str) -> bool:
    """Tell whether a path, relative to the model directory, is a file of weights."""
    # Deeper folders hold other modules (a Dense layer of sentence-transformers, say), not twins.
    return "/" not in path and any(fnmatch(path, pattern) for pattern in _TWIN_FILES)


def place(path: str) -> str:
    """Return where a file of the source goes in the artifact."""
    own = path == CARD or PurePosixPath(path).parts[0] == FOLDER
    return f"{FOLDER}/source/{path}" if own else path
