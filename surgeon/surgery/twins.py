"""Which files beside a model's weights hold them once more, unpatched, by their names.

An unpatched twin in a patched folder is a trap: a loader may take it.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from surgeon.checkpoint.artifact import FOLDER

# Formats of whole models, wherever they lie.
_ANYWHERE = (
    "*.gguf", "*.ggml", "ggml*.bin", "*.h5", "*.msgpack", "*.onnx", "*.onnx_data", "*.tflite",
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


def is_twin(path: str) -> bool:
    """Tell whether a path, relative to the model directory, is a file of the model's weights."""
    parts = PurePosixPath(path.lower()).parts
    if _matches(parts[-1], _MODULES) or parts[0] == FOLDER:
        return False
    return _matches(parts[-1], _ANYWHERE) or (len(parts) == 1 and _matches(parts[0], _AT_THE_TOP))


def is_twin_folder(path: str) -> bool:
    """Tell whether a folder, relative to the model directory, is there for such files."""
    return "/" not in path and _matches(path.lower(), _FOLDERS)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
