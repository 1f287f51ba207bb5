"""Which files of a directory hold the weights: one file, or shards that an index lists."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from surgeon.errors import CheckpointError
from surgeon.model.files import is_file_name, matches, parse_object, recorded_weights
from surgeon.model.pickle_file import open_pickle
from surgeon.model.tensors import TensorFile, open_safetensors

SAFETENSORS = "model.safetensors"
PICKLE = "pytorch_model.bin"
INDEX_SUFFIX = ".index.json"

_NAMES = (SAFETENSORS, SAFETENSORS + INDEX_SUFFIX, PICKLE, PICKLE + INDEX_SUFFIX)
_ADAPTER = "adapter_model.safetensors"
_MERGE = "is a PEFT adapter, not a model: merge it into its base model, save that and give it"
_NUMBERED = re.compile(r"-\d{5}-of-(?P<of>\d{5})\.")
_SHOWN = 5
_OF_TRAINING = ("training_args*", "optimizer*", "scheduler*", "rng_state*", "scaler*")
# What else a folder may have by the ends of the names, and what to do about it.
_REMEDIES = (
    ((".gguf",), ", and GGUF it cannot edit: give the model it was converted from"),
    ((".onnx",), ": give it as MODEL, as a path"),
    (
        (".bin", ".pt", ".pth", ".ckpt"),
        f": if it holds the tensors of the model by name, rename it to {PICKLE}",
    ),
    (
        (".h5", ".msgpack", ".ckpt.index", ".ot", ".npz"),
        ", which is not of PyTorch: load it where it was made and save it as safetensors",
    ),
)

MAX_INDEX = 100_000_000
"""Bytes that an index of shards may have."""


def find_weights(directory: Path) -> tuple[tuple[TensorFile, ...], str | None]:
    """Find and open the weights of a directory as transformers does: safetensors before pickles.

    An artifact's weights may have another name, that of the weight file it was made of.

    Returns:
        The files, and the name of the index if they are shards.

    Raises:
        CheckpointError: there are none, or an index does not fit its shards.
    """
    name = next((name for name in _NAMES if os.path.lexists(directory / name)), None)
    if name is not None:
        if not (directory / name).exists():
            raise CheckpointError(f"{directory / name}: {why_missing(directory / name)}")
        open_file = open_safetensors if name.startswith(SAFETENSORS) else open_pickle
        if not name.endswith(INDEX_SUFFIX):
            return (open_file(directory / name),), None
        names = read_index(directory / name)
        files = [open_file(path) for path in _present(directory, names.values(), "index")]
        check_index(str(directory), names, {file.path.name: file.tensors for file in files})
        return tuple(files), name
    if recorded := recorded_weights(directory):
        return tuple(map(open_safetensors, _present(directory, recorded, "record"))), None
    # Those of a training run are in folders, those of the cache's repositories in their snapshots.
    below = (f"{folder}/{name}" for folder in ("*", "snapshots/*") for name in _NAMES)
    paths = (path for pattern in ("*", *below) for path in directory.glob(pattern))
    others = [path.relative_to(directory).as_posix() for path in paths if not path.is_dir()]
    raise CheckpointError(f"{directory}: {no_weights_among(others, 'give', directory)}")


def find_weights_name(names: Collection[str]) -> str | None:
    """Return the file with the weights, or the index of its shards; safetensors come first."""
    return next((name for name in _NAMES if name in names), None)


def open_one_file(path: Path) -> TensorFile:
    """Open the one weight file of a model.

    Raises:
        CheckpointError: it is one shard of several, or an adapter.
    """
    if _is_shard(path):
        raise CheckpointError(
            f"{path}: is one shard of several, not the whole model; give its directory, "
            f"{path.parent}"
        )
    if path.name == _ADAPTER:
        raise CheckpointError(f"{path}: {_MERGE}")
    return open_safetensors(path)


def read_index(path: Path) -> Mapping[str, str]:
    """Return the ``weight_map`` of an index: tensor name → file name beside the index.

    Raises:
        CheckpointError: it is not an index, or names a file elsewhere.
    """
    if path.stat().st_size > MAX_INDEX:
        raise CheckpointError(f"{path}: an index of more than {MAX_INDEX} bytes")
    return weight_map(str(path), parse_object(str(path), path.read_bytes()))


def weight_map(label: str, index: Mapping[str, Any]) -> Mapping[str, str]:
    """Return an index's map if every file in it is a plain name; ``label`` is for errors."""
    names = index.get("weight_map")
    if not isinstance(names, dict) or not names:
        raise CheckpointError(f"{label}: no weight_map in it")
    for name in names.values():
        if not is_file_name(name):
            raise CheckpointError(
                f"{label}: the shard {name!r} is not the name of a file beside it"
            )
    return names


def check_index(
    label: str, names: Mapping[str, str], shards: Mapping[str, Mapping[str, object]]
) -> None:
    """Check that each tensor is in the shard that an index names, and in no other.

    Args:
        label: the directory or repository, for errors.
        names: the ``weight_map`` of the index; empty for weights in one file.
        shards: the tensors of each shard, by its file name.

    Raises:
        CheckpointError: a tensor is missing, or there twice.
    """
    homes: dict[str, str] = {}
    for shard, tensors in shards.items():
        for tensor in tensors:
            if tensor in homes:
                raise CheckpointError(
                    f"{label}/{shard}: {tensor} is also in {homes[tensor]}; keep one of them"
                )
            homes[tensor] = shard
    for tensor, shard in names.items():
        if homes.get(tensor) != shard:
            raise CheckpointError(f"{label}/{shard}: has no {tensor}, though the index says so")


def converted_name(pickle_name: str) -> str:
    """Return the name that a converted pickle, or its index, has among safetensors files."""
    pickle = pickle_name.removesuffix(INDEX_SUFFIX)
    name = f"{pickle.removesuffix('.bin')}.safetensors{pickle_name.removeprefix(pickle)}"
    return name.removeprefix("pytorch_") if name.startswith("pytorch_model") else name


def converted_index(content: bytes) -> bytes:
    """Return a pickle index with its shards' names converted, its other keys kept."""
    index = json.loads(content)
    renamed = {tensor: converted_name(file) for tensor, file in index["weight_map"].items()}
    return (json.dumps({**index, "weight_map": renamed}, indent=2) + "\n").encode()


def why_missing(path: Path) -> str:
    """Say that a file is not there: it may be a link to nowhere."""
    if path.is_symlink():
        return (
            f"is a link to {path.readlink()}, which is not there; fetch the model again, or copy "
            "it with what its links lead to (cp -L)"
        )
    return "not there"


def no_weights_among(names: Collection[str], give: str, directory: Path | None = None) -> str:
    """Say what a model without weights has in place of them, and what to do.

    Args:
        names: its files, those in folders too.
        give: how a single file becomes MODEL, to which its name is added.
        directory: where they are (None: on the Hub), to look into them.
    """
    return (
        f"no weights in it; surgeon reads {SAFETENSORS} and {PICKLE}, whole or in shards; "
        f"{_found_instead(names, give, directory)}"
    )


def _found_instead(files: Collection[str], give: str, directory: Path | None) -> str:
    names = sorted(name for name in files if "/" not in name)
    below = [name for name in files if "/" in name]
    if _ADAPTER in names or "adapter_config.json" in names:
        return f"it {_MERGE}"
    weights = [name for name in names if name.endswith(".safetensors")]
    several = [n for n in weights if (_is_shard(directory / n) if directory else _is_numbered(n))]
    if whole := [name for name in weights if name not in several]:
        return f"found {', '.join(whole[:_SHOWN])}: {give} one of them as MODEL"
    pickles = [n for n in names if n.lower().endswith(".bin") and _NUMBERED.search(n)]
    for kind, shards in ((SAFETENSORS, weights), (PICKLE, pickles)):
        if shards:
            wanted = kind + INDEX_SUFFIX
            own = next((n for n in names if fnmatch(n, f"{kind}.index.*.json")), None)
            if own is not None:
                return f"found {own}, the index of a variant: rename it to {wanted}"
            return f"found the shard {shards[0]}, and no {wanted}: fetch that too"
    if folders := [n.rpartition("/")[0] for n in below if PurePosixPath(n).name in _NAMES]:
        last = max(folders, key=lambda folder: [int(n) for n in re.findall(r"\d+", folder)])
        others = len(set(folders)) - 1
        more = f" and {others} more with weights" if others else ""
        return f"found the folder {last}{more}: {give} {directory or 'DIR'}/{last}"
    of_model = [name for name in names if not matches(name, _OF_TRAINING)]
    for suffixes, remedy in _REMEDIES:
        if found := [name for name in of_model if name.lower().endswith(suffixes)]:
            return f"found {found[0]}{remedy}"
    return "nothing like them is there"


def _is_shard(path: Path) -> bool:
    """Whether a weight file is one of several, by its name or by an index beside it."""
    if _NUMBERED.search(path.name):
        return _is_numbered(path.name)
    indices = path.parent.glob(f"*{path.suffix}{INDEX_SUFFIX}")
    shards = (set(read_index(index).values()) for index in indices)
    return any(path.name in names and len(names) > 1 for names in shards)


def _is_numbered(name: str) -> bool:
    numbered = _NUMBERED.search(name)
    return numbered is not None and int(numbered["of"]) > 1


def _present(directory: Path, names: Iterable[str], namer: str) -> list[Path]:
    paths = [directory / name for name in sorted(set(names))]
    for path in paths:
        if not path.is_file():
            raise CheckpointError(f"{path}: named by the {namer}, but {why_missing(path)}")
    return paths
