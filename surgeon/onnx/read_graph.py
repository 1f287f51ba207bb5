"""Reading an ONNX file's structure: the protobuf walked field by field, no weight read.

Follows onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto), whose field numbers
stand here as numbers. Neither onnx nor onnx-ir does this: they read a whole file of up to 2 GiB
into memory and do not say where in it a tensor's bytes are, and an edit writes only those bytes.
What a hostile file claims is checked against the bytes that are there before any is read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import graphlib
import math
import mmap
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from surgeon.errors import CheckpointError
from surgeon.model import TensorInfo
from surgeon.model.files import may_follow, weights_size
from surgeon.model.tensors import BITS, MAX_AXES, MAX_LENGTH
from surgeon.onnx.file_graph import FileGraph, Node, StoredTensor
from surgeon.onnx.wire import LENGTH, Buffer, Field, read_fields, read_packed

# TensorProto.DataType; dtypes that are missing here cannot be edited and are of no interest.
ONNX_DTYPES = {
    1: "F32", 2: "U8", 3: "I8", 4: "U16", 5: "I16", 6: "I32", 7: "I64", 9: "BOOL", 10: "F16",
    11: "F64", 12: "U32", 13: "U64", 16: "BF16", 17: "F8_E4M3", 19: "F8_E5M2",
}  # fmt: skip
# Where the scalars of each dtype may be. A packed list of floats is, byte for byte, what raw_data
# would be; in int32_data they are integers, of as many bytes as each takes.
_INT32_DATA = 5
_PAYLOADS = {
    9: tuple(ONNX_DTYPES.values()), 4: ("F32",), 10: ("F64",), _INT32_DATA: ("F16", "BF16"),
}  # fmt: skip
_EXTERNAL = 1  # TensorProto.DataLocation; entries without it are what a tool left behind
_MAX_DEPTH = 100  # of messages in messages, as protobuf's own readers have it
_DOMAINS = ("", "ai.onnx", "com.microsoft")  # those of which surgeon knows the operators
_SCOPES = "pkg.torch.onnx.name_scopes"
_QUOTED = re.compile(r"'([^']*)'")


@contextlib.contextmanager
def mapped(path: Path) -> Iterator[Buffer]:
    """Map a file for reading; an empty one, which cannot be mapped, is empty bytes."""
    if not weights_size(path):
        yield b""
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield data


def read_file_graph(path: Path, root: Path | None = None) -> FileGraph:
    """Read the structure of an ONNX file.

    Args:
        path: the file.
        root: the model directory that links of data files may stay in (None: the file's own).

    Raises:
        CheckpointError: it is not an ONNX file, or a tensor is not where it claims to be.
    """
    with mapped(path) as data:
        try:
            return _Reader(data, path, root or path.parent).graph()
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error


@dataclass
class _Reader:
    """``sizes`` are those of the data files seen so far, ``others`` and ``inner`` of subgraphs."""

    data: Buffer
    path: Path
    root: Path
    sizes: dict[str, int] = field(default_factory=dict)
    others: list[StoredTensor] = field(default_factory=list)
    inner: set[str] = field(default_factory=set)

    def graph(self) -> FileGraph:
        model = self.parts(Field(0, LENGTH, 0, 0, len(self.data), 0))
        graphs = [part for part in model[7] if part.wire == LENGTH]
        if len(graphs) != 1:
            raise CheckpointError(f"not an ONNX model: it has {len(graphs)} graphs, not one")
        parts = self.parts(graphs[0])
        tensors: dict[str, StoredTensor] = {}
        nodes = _in_order(
            [self.node(number, part, tensors) for number, part in enumerate(parts[1])]
        )
        for part in parts[5]:
            stored = self.tensor(part)
            if stored.info.name in tensors:
                raise CheckpointError(f"two initializers are named {stored.info.name!r}")
            tensors[stored.info.name] = stored
        tensors.pop("", None)  # no node can read it: "" is an input that is left out
        for part in parts[15]:  # sparse: values and indices
            sparse = self.parts(part)
            self.others += [self.tensor(inner) for inner in (*sparse[1], *sparse[2])]
        for function in model[25]:
            self.subgraph(function, 0, node_number=7)
        return FileGraph(
            path=self.path,
            span=graphs[0],
            nodes=nodes,
            tensors=tensors,
            inputs=frozenset(self.text(self.parts(part)[1]) for part in parts[11]),
            outputs=frozenset(self.text(self.parts(part)[1]) for part in parts[12]),
            others=tuple(self.others),
            inner=frozenset(self.inner),
            locations=tuple(self.sizes),
            ir_version=model[1][-1].value if model[1] else 0,
        )

    def parts(self, message: Field) -> Mapping[int, list[Field]]:
        """Return a message's fields by number, none for one that it has not."""
        if message.wire != LENGTH:
            raise CheckpointError(f"byte {message.start} is not a message")
        found = defaultdict(list)
        for part in read_fields(self.data, message.begin, message.end):
            found[part.number].append(part)
        return found

    def texts(self, parts: Sequence[Field]) -> tuple[str, ...]:
        try:
            return tuple(bytes(self.data[part.begin : part.end]).decode() for part in parts)
        except UnicodeDecodeError as error:
            raise CheckpointError(f"a text after byte {parts[0].begin} is not UTF-8") from error

    def text(self, parts: Sequence[Field]) -> str:
        """Return a text that is there once; of several the last counts, as in all of protobuf."""
        return "".join(self.texts(parts[-1:]))

    def entries(self, messages: Sequence[Field]) -> dict[str, str]:
        """Return the pairs of a list of StringStringEntryProto."""
        found = map(self.parts, messages)
        return {self.text(pair[1]): self.text(pair[2]) for pair in found}

    def node(
        self, number: int, span: Field, tensors: dict[str, StoredTensor] | None, depth: int = 0
    ) -> Node:
        """Return a node; the tensor in a Constant is added to ``tensors``."""
        parts = self.parts(span)
        operation, outputs = self.text(parts[4]), self.texts(parts[2])
        if (domain := self.text(parts[7])) not in _DOMAINS:
            operation = f"{domain}::{operation}"
        captured, integers = set[str](), {}
        for attribute in map(self.parts, parts[5]):
            name = self.text(attribute[1])
            integers[name] = attribute[3][-1].value if attribute[3] else 0
            for graph in (*attribute[6], *attribute[11]):
                captured |= self.subgraph(graph, depth + 1)
            constant = operation == "Constant" and outputs and name == "value" and attribute[5]
            if constant and tensors is not None:
                tensors[outputs[0]] = self.tensor(attribute[5][-1], outputs[0])
            else:
                self.others += map(self.tensor, attribute[5])
        # Such as ['', 'bert', 'bert.pooler', 'linear'], the last of which is the operation itself.
        modules = _QUOTED.findall(self.entries(parts[9]).get(_SCOPES, ""))[:-1]
        return Node(
            number=number,
            name=self.text(parts[3]),
            operation=operation,
            inputs=self.texts(parts[1]),
            outputs=outputs,
            scope=modules[-1] if modules else "",
            captured=frozenset(captured),
            attributes=integers,
            input_fields=tuple(parts[1]),
            start=span.start,
            begin=span.begin,
            end=span.end,
        )

    def subgraph(self, graph: Field, depth: int, node_number: int = 1) -> set[str]:
        """Return the names that a subgraph reads, its own among them, and note its tensors.

        A function has its nodes under another number, and no tensors of its own.
        """
        if depth > _MAX_DEPTH:
            raise CheckpointError("its subgraphs are nested too deeply")
        parts = self.parts(graph)
        nodes = [self.node(0, part, None, depth) for part in parts[node_number]]
        self.inner.update(node.operation for node in nodes)
        names = {name for node in nodes for name in (*node.inputs, *node.captured)}
        if node_number == 1:
            self.others += map(self.tensor, parts[5])
            names |= {self.text(self.parts(output)[1]) for output in parts[12]}
        return names

    def tensor(self, span: Field, name: str = "") -> StoredTensor:
        parts = self.parts(span)
        name = name or self.text(parts[8])
        number = parts[2][-1].value if parts[2] else 0
        dtype = ONNX_DTYPES.get(number, f"type {number}")
        shape = [length for part in parts[1] for length in read_packed(self.data, part)]
        if len(shape) > MAX_AXES or math.prod(shape) > MAX_LENGTH:
            raise CheckpointError(f"tensor {name} claims a shape of {len(shape)} axes, too large")
        length = math.prod(shape) * BITS.get(dtype, 0) // 8
        info = TensorInfo(name, dtype, tuple(shape), 0, length)
        if parts[14] and parts[14][-1].value == _EXTERNAL:
            return self.external(info, self.entries(parts[13]))
        for number, dtypes in _PAYLOADS.items():
            payload = parts[number][-1] if parts[number] else None
            if payload is None or payload.wire != LENGTH or dtype not in dtypes:
                continue
            packed, found = number == _INT32_DATA, payload.end - payload.begin
            if not packed and found != length:
                raise CheckpointError(
                    f"tensor {name} claims the shape {shape} of {dtype} in {found} bytes"
                )
            info = dataclasses.replace(info, start=payload.begin, end=payload.end)
            return StoredTensor(info, None, packed=packed)
        obstacle = (
            f"{name} ({dtype}) is not stored as raw bytes; store it so, with "
            "tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), "
            "tensor.name)), and save the model"
        )
        return StoredTensor(dataclasses.replace(info, end=0), None, obstacle)

    def external(self, info: TensorInfo, entries: Mapping[str, str]) -> StoredTensor:
        """Place a tensor, with its length in bytes as the end, by its ``external_data``."""
        location, claimed = entries.get("location", ""), entries.get("length")
        if location not in self.sizes:
            self.sizes[location] = weights_size(self.data_file(info.name, location))
        size = self.sizes[location]
        start = _number(entries.get("offset", "0"))
        # Of a type that surgeon does not know, the file alone says how long it is.
        length = info.end if info.dtype in BITS else _number(claimed or "0")
        if start + length > size or (claimed and _number(claimed) != length):
            raise CheckpointError(
                f"tensor {info.name} claims {claimed or length} bytes from {start} of "
                f"{location!r}, which has {size}, for the shape {list(info.shape)}"
            )
        return StoredTensor(dataclasses.replace(info, start=start, end=start + length), location)

    def data_file(self, tensor: str, location: str) -> Path:
        """Return the file at a path relative to the model's folder, inside it."""
        path = PurePosixPath(location)
        leaves = path.is_absolute() or ".." in path.parts or not path.parts
        if leaves or not {"\\", "\0"}.isdisjoint(location):
            raise CheckpointError(
                f"tensor {tensor} has its data in {location!r}, which is not a file beside it"
            )
        file = self.path.parent / path
        if not file.is_file() or file.samefile(self.path):
            raise CheckpointError(f"its data file {location!r} is missing; put it beside it")
        if not may_follow(self.root, file):
            raise CheckpointError(f"its data file {location!r} is a link to elsewhere")
        return file


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise CheckpointError(f"{text!r} is not an offset or a length of external data")
    return int(text)


def _in_order(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """Return the nodes so that each value is given once, and before it is read: none in a cycle.

    The specification has them so. onnxruntime's own conversion to float16 does not, nor does it
    mind.
    """
    givers: dict[str, int] = {}
    for node in nodes:
        for name in filter(None, node.outputs):
            if givers.setdefault(name, node.number) != node.number:
                raise CheckpointError(f"two nodes give {name!r}: not a valid ONNX graph")
    before = {node.number: [givers[n] for n in node.inputs if n in givers] for node in nodes}
    if all(number > max(earlier, default=-1) for number, earlier in before.items()):
        return tuple(nodes)
    try:
        order = tuple(graphlib.TopologicalSorter(before).static_order())
    except graphlib.CycleError as error:
        name = nodes[error.args[1][0]].result
        raise CheckpointError(f"{name!r} is made of itself: not a valid ONNX graph") from error
    return tuple(dataclasses.replace(nodes[old], number=new) for new, old in enumerate(order))
