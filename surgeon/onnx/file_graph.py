"""An ONNX file as it lies on disk: its nodes, and where every tensor's bytes are."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

from surgeon.errors import CheckpointError
from surgeon.model import TensorInfo
from surgeon.model.files import may_follow
from surgeon.model.safetensors_file import BITS
from surgeon.onnx.wire import Field

_MAX_IDENTITIES = 100  # in a row; no exporter writes two

# Where an operation has its table, by the input that says which rows of it.
_TABLE_INPUT = {("Gather", 1): 0, ("EmbedLayerNormalization", 0): 2}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of an ONNX file: an initializer, or what a Constant node gives.

    ``location`` is the data file beside the ONNX file, None for the ONNX file itself. ``info`` has
    the offsets there. ``obstacle`` says why its scalars have none, if they have none. ``packed``
    are numbers in ``int32_data``, of one to three bytes each: they can be read, and not replaced.
    """

    info: TensorInfo
    location: str | None
    obstacle: str = ""
    packed: bool = False


@dataclass(frozen=True)
class Node:
    """A node: ``start`` to ``end`` are its whole field in the file, ``begin`` its payload.

    ``input_fields`` are the fields of the input names. ``scope`` is the module path that torch's
    exporter noted. ``captured`` are the names that the node's subgraphs use. ``attributes`` holds
    the integers alone.
    """

    name: str
    operation: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    scope: str
    captured: frozenset[str]
    attributes: Mapping[str, int]
    input_fields: tuple[Field, ...]
    start: int
    begin: int
    end: int


@dataclass(frozen=True)
class FileGraph:
    """The graph of an ONNX file; ``span`` is its field in the file.

    ``others`` are the tensors of subgraphs, functions and attributes, which share the data files.
    ``locations`` are those files.
    """

    path: Path
    span: Field
    nodes: tuple[Node, ...]
    tensors: Mapping[str, StoredTensor]
    inputs: frozenset[str]
    outputs: frozenset[str]
    others: tuple[StoredTensor, ...]
    locations: tuple[str, ...]
    ir_version: int

    @cached_property
    def producers(self) -> Mapping[str, int]:
        """The number of the node that gives a value."""
        return {
            name: number
            for number, node in enumerate(self.nodes)
            for name in filter(None, node.outputs)
        }

    @cached_property
    def readers(self) -> Mapping[str, tuple[tuple[int, int], ...]]:
        """Where each value is read: the number of the node, and of its input."""
        found: dict[str, list[tuple[int, int]]] = {}
        for number, node in enumerate(self.nodes):
            for slot, name in enumerate(node.inputs):
                found.setdefault(name, []).append((number, slot))
        return {name: tuple(places) for name, places in found.items()}

    @cached_property
    def names(self) -> frozenset[str]:
        """Every name of a value, subgraphs included."""
        nodes = (name for n in self.nodes for name in (*n.inputs, *n.outputs, *n.captured))
        return frozenset({*nodes, *self.tensors, *self.inputs, *self.outputs})

    def tensor_of(self, value: str) -> StoredTensor | None:
        """Return the tensor that a value is, seen through Identity nodes; None if computed."""
        for _ in range(_MAX_IDENTITIES):
            producer = self.producers.get(value)
            if producer is None or self.nodes[producer].operation != "Identity":
                return self.tensors.get(value)
            value = self.nodes[producer].inputs[0]
        return None

    def rows_picked_by(self, value: str) -> int | None:
        """Return how many rows the table has that a value's numbers pick from; None for no table.

        The value is an input of token ids, say; a quantized table counts too.
        """
        for number, slot in self.readers.get(value, ()):
            node = self.nodes[number]
            if node.operation == "Cast":
                rows = self.rows_picked_by(node.outputs[0])
                if rows is not None:
                    return rows
            place = _TABLE_INPUT.get((node.operation, slot))
            if place is None:
                continue
            producer = self.producers.get(node.inputs[place])
            name = node.inputs[place]
            if producer is not None and self.nodes[producer].operation == "DequantizeLinear":
                name = self.nodes[producer].inputs[0]
            table = self.tensor_of(name)
            if table is not None and table.info.shape:
                return table.info.shape[0]
        return None


@dataclass(frozen=True)
class DataFiles:
    """The data files of the model at ``path``: links stay in ``root``; ``sizes`` are of those seen.

    A location is a path relative to the model's own folder.
    """

    path: Path
    root: Path
    sizes: dict[str, int] = field(default_factory=dict)

    def locate(self, info: TensorInfo, entries: Mapping[str, str]) -> StoredTensor:
        """Place a tensor in its data file.

        Args:
            info: the tensor, with its length in bytes as the end.
            entries: the ``external_data`` of its TensorProto.

        Raises:
            CheckpointError: the file is not beside the model, or not as long as the tensor needs.
        """
        location, claimed = entries.get("location", ""), entries.get("length")
        size = self._size(info.name, location)
        start = _number(entries.get("offset", "0"))
        # Of a type that surgeon does not know, the file alone says how long it is.
        length = info.end if info.dtype in BITS else _number(claimed or "0")
        if start + length > size or (claimed and _number(claimed) != length):
            raise CheckpointError(
                f"tensor {info.name} claims {claimed or length} bytes from {start} of "
                f"{location!r}, which has {size}, for the shape {list(info.shape)}"
            )
        return StoredTensor(dataclasses.replace(info, start=start, end=start + length), location)

    def _size(self, tensor: str, location: str) -> int:
        if location not in self.sizes:
            path = PurePosixPath(location)
            leaves = path.is_absolute() or ".." in path.parts or not path.parts
            if leaves or not {"\\", "\0"}.isdisjoint(location):
                raise CheckpointError(
                    f"tensor {tensor} has its data in {location!r}, which is no file beside it"
                )
            file = self.path.parent / path
            if not file.is_file() or file.samefile(self.path):
                raise CheckpointError(f"its data file {location!r} is missing; put it beside it")
            if not may_follow(self.root, file):
                raise CheckpointError(f"its data file {location!r} is a link to elsewhere")
            self.sizes[location] = file.stat().st_size
        return self.sizes[location]


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise CheckpointError(f"{text!r} is no offset or length of external data")
    return int(text)
