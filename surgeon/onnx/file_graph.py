"""An ONNX file as it is on disk: its nodes, and where every tensor's bytes are."""

from __future__ import annotations

import re
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
SAME = ("Identity", "Cast")
"""Operations that pass a tensor on, as it is or in another dtype."""

QUANTIZED = re.compile(r"Dequantize|DynamicQuantize|BlockQuantize|Integer|^Q[A-Z]|NBits|Bnb4|FpQ4")
"""In the names of the operators that read quantized weights, ONNX's and onnxruntime's."""

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

    ``others`` are the tensors of subgraphs, functions and attributes, which share the data files;
    ``inner`` are the operations in subgraphs and functions.
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
    inner: frozenset[str]
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
    def captured(self) -> frozenset[str]:
        """The names that subgraphs use."""
        return frozenset(name for node in self.nodes for name in node.captured)

    @cached_property
    def overlapping(self) -> frozenset[str]:
        """The tensors that have a byte which is another's too: two names for the same data."""
        found, last = set[str](), dict[str | None, StoredTensor]()
        for one in sorted((*self.tensors.values(), *self.others), key=lambda s: s.info.start):
            before = last.get(one.location, one)
            if before is not one and one.info.start < before.info.end:
                found |= {before.info.name, one.info.name}
            last[one.location] = max(before, one, key=lambda stored: stored.info.end)
        return frozenset(found)

    @cached_property
    def names(self) -> frozenset[str]:
        """Every name of a value, subgraphs included."""
        nodes = (name for node in self.nodes for name in (*node.inputs, *node.outputs))
        return self.captured.union(nodes, self.tensors, self.inputs, self.outputs)

    def origin(self, value: str) -> str:
        """Return what a value was before Identity and Cast nodes."""
        for _ in range(_MAX_IDENTITIES):
            node = self.producers.get(value)
            if node is None or node.operation not in SAME:
                break
            value = node.first
        return value

    def tensor_of(self, value: str) -> StoredTensor | None:
        """Return the tensor that a value is, as it is or in another dtype; None if computed."""
        return self.tensors.get(self.origin(value))

    def aliases(self, value: str) -> tuple[str, ...]:
        """Return a value's name, and the names of what Identity and Cast nodes make of it."""
        found, waiting = {value: None}, [value]
        while waiting:
            nodes = [self.nodes[number] for number, _ in self.readers.get(waiting.pop(), ())]
            same = {node.result: None for node in nodes if node.operation in SAME}
            waiting.extend(name for name in same if name not in found)
            found |= same
        return tuple(found)

    def rows_picked_by(self, value: str) -> int | None:
        """Return how many rows the table has that a value's numbers pick from; None for no table.

        The value is an input of token ids, say; a quantized table counts too.
        """
        for number, slot in (u for name in self.aliases(value) for u in self.readers.get(name, ())):
            node = self.nodes[number]
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
            locations[stored.location][name] = stored.info
    packed = frozenset(name for name, stored in graph.tensors.items() if stored.packed)
    return tuple(
        OnnxTensorFile(graph.path.parent / location if location else graph.path, tensors, packed)
        for location, tensors in locations.items()
    )
