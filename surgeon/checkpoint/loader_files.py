"""Which files beside a model's weights a loader reads, by their names: what a download is for."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

_NAMES = (
    "*.json", "*.jinja", "*.py",  # configurations, chat templates, the code of an auto_map
    # Vocabularies as transformers' tokenizers name them.
    "*vocab*", "*token*", "merges.txt", "dict.txt", "bpe.codes", "*.model", "*.spm", "*.tiktoken",
    "*_linear.pt",  # the heads of BGE-M3
    "README.md", "LICENSE*", "NOTICE*",
)  # fmt: skip
_WEIGHTS = (
    "*.index.json", "*.safetensors", "*.bin", "*.h5", "*.msgpack", "*.ot", "*.onnx*", "*.gguf",
    "*.gz", "*.zip", "*.npz", "*.ckpt*", "*.tflite", "optimizer*", "scheduler*", "trainer_state*",
)  # fmt: skip
# 1_Pooling and 2_Dense of sentence-transformers, and transformers' further chat templates.
_FOLDERS = re.compile(r"\d+_\w+|additional_chat_templates")


def is_for_loader(path: str) -> bool:
    """Tell whether a loader of the model reads a file that holds no weights of the whole model.

    Args:
        path: the file, relative to the model's directory and with ``/``.
    """
    folder, name = PurePosixPath(path).parts[:-1], PurePosixPath(path).name
    if folder and not in_module_folder(path):
        return False
    return _matches(name, _NAMES) and not _matches(name, _WEIGHTS)


def in_module_folder(path: str) -> bool:
    """Tell whether a file lies in the folder of a module, which may hold weights of its own."""
    first, *rest = PurePosixPath(path).parts
    return bool(rest) and _FOLDERS.fullmatch(first) is not None


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
