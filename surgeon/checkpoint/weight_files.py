"""Which files of a directory hold the weights: one file, or shards that an index lists."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surgeon.checkpoint.pickle_file import PickleFile, open_pickle
from surgeon.checkpoint.safetensors_file import SafetensorsFile, open_safetensors
from surgeon.errors import CheckpointError

SAFETENSORS = "model.safetensors"
PICKLE = "pytorch_model.bin"
INDEX_SUFFIX = ".index.json"

_MAX_INDEX = 100_000_000  # bytes


@dataclass(frozen=True)
class WeightFiles:
    """The files that hold a model's tensors, and the name of the index if they are shards."""

    files: tuple[SafetensorsFile, ...] | tuple[PickleFile, ...]
    index: str | None


def find_weights(directory: Path) -> WeightFiles:
    """Find and open the weights of a directory as transformers does: safetensors before pickles.

    Raises:
        CheckpointError: there are none, or an index does not fit its shards.
    """
    readers: tuple[tuple[str, Callable[[Path], Any]], ...] = (
        (SAFETENSORS, open_safetensors),
        (PICKLE, open_pickle),
    )
    for whole, open_file in readers:
        if (directory / whole).is_file():
            return WeightFiles((open_file(directory / whole),), None)
        index = directory / (whole + INDEX_SUFFIX)
        if index.is_file():
            names = read_index(index)
            shards = {name: open_file(directory / name) for name in _there(directory, names)}
            _check_index(directory, names, {name: file.tensors for name, file in shards.items()})
            return WeightFiles(tuple(shards.values()), index.name)
    others = ", ".join(sorted(path.name for path in directory.glob("*.safetensors"))[:5])
    found = f"found {others}: give one of them as MODEL" if others else "nothing like them is there"
    raise CheckpointError(
        f"{directory}: no weights in it; surgeon reads {SAFETENSORS} and {PICKLE}, whole or in "
        f"shards; {found}"
    )


def read_index(path: Path) -> Mapping[str, str]:
    """Return the ``weight_map`` of an index: tensor name → file name beside the index.

    Raises:
        CheckpointError: it is no index, or names a file elsewhere.
    """
    if path.stat().st_size > _MAX_INDEX:
        raise CheckpointError(f"{path}: an index of more than {_MAX_INDEX} bytes")
    try:
        index = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not valid JSON ({error})") from error
    return weight_map(str(path), index)


def weight_map(label: str, index: Any) -> Mapping[str, str]:
    """Return an index's map if every file in it is a plain name; ``label`` is for errors."""
    names = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(names, dict) or not names:
        raise CheckpointError(f"{label}: no weight_map in it")
    for name in names.values():
        plain = isinstance(name, str) and name not in ("", ".", "..")
        if not plain or any(mark in name for mark in "/\\\0"):
            raise CheckpointError(f"{label}: the shard {name!r} is no file name beside the index")
    return names


def converted_name(pickle_name: str) -> str:
    """Return the name that a converted pickle, or its index, has among safetensors files."""
    name = pickle_name
    if name.startswith("pytorch_model"):
        name = "model" + name.removeprefix("pytorch_model")
    if name.endswith(".bin" + INDEX_SUFFIX):
        return name.removesuffix(".bin" + INDEX_SUFFIX) + ".safetensors" + INDEX_SUFFIX
    return name.removesuffix(".bin") + ".safetensors"


def converted_index(content: bytes) -> bytes:
    """Return a pickle index with its shards' names converted, its other keys kept."""
    index = json.loads(content)
    renamed = {tensor: converted_name(file) for tensor, file in index["weight_map"].items()}
    return (json.dumps({**index, "weight_map": renamed}, indent=2) + "\n").encode()


def _there(directory: Path, names: Mapping[str, str]) -> list[str]:
    shards = sorted(set(names.values()))
    for shard in shards:
        if not (directory / shard).is_file():
            raise CheckpointError(f"{directory / shard}: named by the index, but not there")
    return shards


def _check_index(
    directory: Path, names: Mapping[str, str], shards: Mapping[str, Mapping[str, object]]
) -> None:
    for tensor, shard in names.items():
        if tensor not in shards[shard]:
            raise CheckpointError(f"{directory / shard}: has no {tensor}, though the index says so")
    homes: dict[str, str] = {}
    for shard, tensors in shards.items():
        for tensor in tensors:
            if tensor in homes:
                raise CheckpointError(
                    f"{directory / shard}: {tensor} is also in {homes[tensor]}; keep one of them"
                )
            homes[tensor] = shard
