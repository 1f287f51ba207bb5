"""The files of a model directory: which may be followed and read, and what an artifact's are.

A record says what an artifact's weights are called, whose names may be a person's own.
"""

from __future__ import annotations

import codecs
import json
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeAlias, TypeGuard

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
        CheckpointError: it is missing, or is a pipe or a device, which could be read forever.
    """
    try:
        found = path.stat()
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path}: is missing; put it back, or get the folder again"
        ) from error
    if not stat.S_ISREG(found.st_mode):
        raise CheckpointError(f"{path}: is not a regular file; put the file itself there")
    return found.st_size


_POINTER = b"version https://git-lfs"


def weights_size(path: Path) -> int:
    """Return the size of a file of weights.

    Raises:
        CheckpointError: as ``regular_size``, or git-LFS left a pointer in its place.
    """
    size = regular_size(path)
    with path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise CheckpointError(
                f"{path}: is a git-LFS pointer, not the weights; run git lfs pull"
            )
    return size


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
    return matches(name, _NAMES) and not matches(name, _WEIGHTS)


def in_module_folder(path: str) -> bool:
    """Tell whether a file lies in the folder of a module, which may hold weights of its own."""
    first, *rest = PurePosixPath(path).parts
    return bool(rest) and _FOLDERS.fullmatch(first) is not None


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a name is one that a pattern of a shell stands for."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


_DEEPEST = 100
_MOST_BYTES = 200_000_000
_LONGEST_NAME = 255  # characters that a file system takes, at most

Pairs: TypeAlias = list[tuple[str, Any]]
Errors: TypeAlias = Literal["strict", "surrogateescape"]


def parse_json(
    raw: bytes,
    object_of: Callable[[Pairs], dict[str, Any]] | None = None,
    errors: Errors = "strict",
) -> Any:
    """Parse JSON in UTF-8 that anybody may have written.

    ``object_of`` makes an object of its pairs, as ``json.loads`` has it; ``errors`` lets the names
    of files be what they are, which need not be text.

    Raises:
        ValueError: it is not JSON, is nested too deep or too large, or holds what is not text.
    """
    if len(raw) > _MOST_BYTES:
        raise ValueError(f"{len(raw):,} bytes, and at most {_MOST_BYTES:,} are read")
    try:
        document = json.loads(raw.decode(), object_pairs_hook=object_of)
    except RecursionError as error:
        raise ValueError(f"nested more than {_DEEPEST} deep") from error
    # So few brackets cannot be nested deeper, and a look takes as long as the parsing.
    level, depth = [document] if raw.count(b"[") + raw.count(b"{") > _DEEPEST else [], 0
    while level := [part for part in level if isinstance(part, dict | list)]:
        if depth > _DEEPEST:
            raise ValueError(f"nested more than {_DEEPEST} deep")
        parts = (v.values() if isinstance(v, dict) else v for v in level)
        level, depth = [part for within in parts for part in within], depth + 1
    if b"\\u" in raw:
        try:
            json.dumps(document, ensure_ascii=False).encode(errors=errors)
        except UnicodeEncodeError as error:
            raise ValueError("it has half of a surrogate pair, which is not a character") from error
    return document


def parse_object(label: str, raw: bytes, errors: Errors = "strict") -> dict[str, Any]:
    """Parse a JSON object; ``label`` names its file in errors.

    Raises:
        CheckpointError: it is not one.
    """
    try:
        document = parse_json(raw.removeprefix(codecs.BOM_UTF8), errors=errors)
    except ValueError as error:
        raise CheckpointError(f"{label}: not valid JSON ({error})") from error
    if not isinstance(document, dict):
        raise CheckpointError(f"{label}: not a JSON object")
    return document


def read_object(path: Path, errors: Errors = "strict") -> dict[str, Any] | None:
    """Read the JSON object that a file holds; None without the file.

    Raises:
        CheckpointError: it holds none.
    """
    return parse_object(str(path), path.read_bytes(), errors) if path.is_file() else None


def is_file_name(value: object) -> TypeGuard[str]:
    """Whether a value is the plain name of a file, which leads to no other folder."""
    if not isinstance(value, str) or value in ("", ".", "..") or len(value) > _LONGEST_NAME:
        return False
    return not any(mark in value for mark in "/\\\0")


FOLDER = "surgeon"
"""The folder inside an artifact that holds all that surgeon adds for itself."""

RECORD = f"{FOLDER}/record.json"
"""The file that makes a directory an artifact."""

SCHEMA = 1
"""Of the record."""

OWN_HASH = "blake3"
"""The record's key for its own hash, which older records do not have."""


def own_hash(fields: Mapping[str, Any]) -> str:
    """Return the hash of all that a record says; the order of its keys and its gaps do not count.

    Args:
        fields: as they were parsed. The hash itself may be among them.
    """
    from blake3 import blake3

    said = {name: value for name, value in fields.items() if name != OWN_HASH}
    return blake3(json.dumps(said, sort_keys=True).encode()).hexdigest()


def recorded_pattern(directory: Path) -> str | None:
    """Return the ``sites_pattern`` that an artifact was made with, None for none."""
    pattern = read_record_fields(directory).get("sites_pattern")
    return pattern if isinstance(pattern, str) else None


def recorded_weights(directory: Path) -> tuple[str, ...]:
    """Return the names of an artifact's weight files, none for any other directory.

    Raises:
        CheckpointError: the record is damaged or names a file elsewhere, or the artifact was made
            from an ONNX file.
    """
    record = read_record_fields(directory)
    if not record:
        return ()
    if record.get("onnx_patch") is not None:
        raise CheckpointError(
            f"{directory}: was made from an ONNX file; give that file in it, as MODEL.onnx"
        )
    names = record.get("weights")
    if not isinstance(names, list) or not all(map(is_file_name, names)):
        raise CheckpointError(
            f"{directory / RECORD}: its weights are not the names of files; it is damaged"
        )
    return tuple(names)


def read_record_fields(directory: Path) -> Mapping[str, Any]:
    """Return what an artifact's record says, nothing for any other directory.

    Raises:
        CheckpointError: the record is not as it was written.
    """
    fields = read_object(directory / RECORD, "surrogateescape") or {}
    hashed = fields.get("schema") == SCHEMA and OWN_HASH in fields
    if hashed and fields[OWN_HASH] != own_hash(fields):
        raise CheckpointError(
            f"{directory / RECORD}: damaged (its hash is not that of what it says); get the "
            "artifact again, or patch again"
        )
    return fields
