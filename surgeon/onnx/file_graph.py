"""An ONNX file as it is on disk: its nodes, and where every tensor's bytes are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np

from surgeon.errors import CheckpointError
from surgeon.model.tensors import TensorFile, TensorInfo
from surgeon.onnx.wire import Field, unpack

Use: TypeAlias = tuple[int, int]
"""Where a value is read: the number of a node, and of its input."""

_MAX_IDENTITIES = 100  # in a row; no exporter writes two
_SAME = ("Identity", "Cast")

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
    the integers only.
    """

    number: int
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

    @property
    def first(self) -> str:
        """The first input; "" without one."""
        return self.inputs[0] if self.inputs else ""

    @property
    def result(self) -> str:
        """The first output; "" without one."""
        return self.outputs[0] if self.outputs else ""


@dataclass(frozen=True)
class FileGraph:
    """The graph of an ONNX file; ``span`` is its field in the file.

    ``others`` are the tensors of subgraphs, functions and attributes, which share the data files.
    ``locations`` are those files.

    onnx-ir has producers and uses too. It has no byte offsets, and to import it takes a second
    (it brings sympy), more than all that is done with a graph here.
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
    def producers(self) -> Mapping[str, Node]:
        """The node that gives a value."""
        return {name: node for node in self.nodes for name in node.outputs if name}

    @cached_property
    def readers(self) -> Mapping[str, list[Use]]:
        """Where each value is read."""
        found = defaultdict(list)
        for node in self.nodes:
            for slot, name in enumerate(node.inputs):
                if name:  # an optional input may be left out
                    found[name].append((node.number, slot))
        return dict(found)

    @cached_property
    def names(self) -> frozenset[str]:
        """Every name of a value, subgraphs included."""
        nodes = (name for n in self.nodes for name in (*n.inputs, *n.outputs, *n.captured))
        return frozenset({*nodes, *self.tensors, *self.inputs, *self.outputs})

    def tensor_of(self, value: str) -> StoredTensor | None:
        """Return the tensor that a value is, as it is or in another dtype; None if computed."""
        for _ in range(_MAX_IDENTITIES):
            node = self.producers.get(value)
            if node is None or node.operation not in _SAME:
                return self.tensors.get(value)
            value = node.first
        return None

    def rows_picked_by(self, value: str) -> int | None:
        """Return how many rows the table has that a value's numbers pick from; None for no table.

        The value is an input of token ids, say; a quantized table counts too.
        """
        names = [value]
        for number, slot in (use for name in names for use in self.readers.get(name, ())):
            node = self.nodes[number]
            if node.operation == "Cast":
                names.append(node.result)  # which the loop goes on with
            table_slot = _TABLE_INPUT.get((node.operation, slot), len(node.inputs))
            if table_slot >= len(node.inputs):
                continue
            name = node.inputs[table_slot]
            producer = self.producers.get(name)
            if producer is not None and producer.operation == "DequantizeLinear":
                name = producer.first
            table = self.tensor_of(name)
            if table is not None and table.info.shape:
                return table.info.shape[0]
        return None


@dataclass(frozen=True)
class OnnxTensorFile(TensorFile):
    """A file that holds tensors of an ONNX model at known offsets, and other bytes between.

    ``packed`` are those in ``int32_data``: numbers of 16 bits, in as few bytes as each takes.
    """

    packed: frozenset[str]

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield a tensor's bytes as raw data has them, in pieces of bounded length."""
        if name not in self.packed:
            yield from super().pieces(name)
            return
        info = self.tensors[name]
        try:
            numbers = unpack(b"".join(super().pieces(name)))
        except CheckpointError as error:
            raise CheckpointError(f"{self.path}: tensor {name}: {error}") from error
        if numbers.size != info.size or (numbers >> np.uint64(16)).any():
            raise CheckpointError(
                f"{self.path}: tensor {name} claims the shape {list(info.shape)} of {info.dtype} "
                f"and its int32_data are {numbers.size} numbers, not {info.size} of 16 bits"
            )
        yield numbers.astype("<u2").tobytes()


def tensor_files(graph: FileGraph) -> tuple[OnnxTensorFile, ...]:
    """Return the ONNX file and its data files, with the tensors that each one holds."""
    locations: dict[str | None, dict[str, TensorInfo]] = {
        name: {} for name in (None, *graph.locations)
    }
    for name, stored in graph.tensors.items():
        if not stored.obstacle:
            locations.setdefault(stored.location, {})[name] = stored.info
    packed = frozenset(name for name, stored in graph.tensors.items() if stored.packed)
    return tuple(
        OnnxTensorFile(graph.path.parent / location if location else graph.path, tensors, packed)
        for location, tensors in locations.items()
    )
