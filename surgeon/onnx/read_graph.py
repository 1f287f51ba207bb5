"""Reading an ONNX file's structure: the protobuf walked field by field, no weight read.

Follows onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto), whose field numbers
stand here as numbers.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from surgeon.errors import CheckpointError
from surgeon.model import TensorInfo
from surgeon.model.files import regular_size
from surgeon.model.safetensors_file import BITS
from surgeon.onnx.file_graph import (
    DataFiles,
    FileGraph,
    Node,
    StoredTensor,
)
from surgeon.onnx.wire import (
    LENGTH,
    Buffer,
    Field,
    read_fields,
    read_packed,
)

# TensorProto.DataType; dtypes that are missing here cannot be edited and are of no interest.
DTYPES = {
    1: "F32", 2: "U8", 3: "I8", 4: "U16", 5: "I16", 6: "I32", 7: "I64", 9: "BOOL", 10: "F16",
    11: "F64", 12: "U32", 13: "U64", 16: "BF16", 17: "F8_E4M3", 19: "F8_E5M2",
}  # fmt: skip
# A packed list of floats is, byte for byte, what raw_data would be.
_PAYLOADS = {9: tuple(DTYPES.values()), 4: ("F32",), 10: ("F64",)}
# These are integers there (onnx.proto), of as many bytes as each takes.
_IN_INT32_DATA = ("F16", "BF16")
_MAX_DEPTH = 100  # of messages in messages, as protobuf's own readers have it
_MAX_ELEMENTS = 2**63
_MAX_RANK = 64
_QUOTED = re.compile(r"'([^']*)'")


@contextlib.contextmanager
def mapped(path: Path) -> Iterator[Buffer]:
    """Map a file for reading; an empty one, which cannot be mapped, is empty bytes."""
    if not regular_size(path):
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
        CheckpointError: it is no ONNX file, or a tensor does not lie where it claims.
    """
    try:
        with mapped(path) as data:
            return _Reader(data, path, DataFiles(path, root or path.parent)).graph()
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


@dataclass
class _Reader:
    data: Buffer
    path: Path
    files: DataFiles
    others: list[StoredTensor] = field(default_factory=list)

    def graph(self) -> FileGraph:
        parts = list(read_fields(self.data, 0, len(self.data)))
        graphs = [part for part in parts if part.number == 7 and part.wire == LENGTH]
        if len(graphs) != 1:
            raise CheckpointError(f"not an ONNX model: it has {len(graphs)} graphs, not one")
        (span,) = graphs
        nodes, tensors = [], {}
        inputs, outputs = set[str](), set[str]()
        for part in self.fields(span):
            if part.number == 1:
                node, constant = self.node(part)
                nodes.append(node)
                if constant is not None:
                    tensors[node.outputs[0]] = self.tensor(constant, node.outputs[0])
            elif part.number == 5:
                stored = self.tensor(part)
                if stored.info.name in tensors:
                    raise CheckpointError(f"two initializers are named {stored.info.name!r}")
                tensors[stored.info.name] = stored
            elif part.number == 15:  # sparse: values and indices
                self.others += [self.tensor(f) for f in self.fields(part) if f.number in (1, 2)]
            elif part.number in (11, 12):
                (inputs if part.number == 11 else outputs).add(self.texts(part, 1)[-1])
        for function in (part for part in parts if part.number == 25):
            self.capture(function, set(), 0, node_number=7)
        _check_order(nodes)
        version = next((part.value for part in parts if part.number == 1), 0)
        return FileGraph(
            path=self.path,
            span=span,
            nodes=tuple(nodes),
            tensors=tensors,
            inputs=frozenset(inputs),
            outputs=frozenset(outputs),
            others=tuple(self.others),
            locations=tuple(self.files.sizes),
            ir_version=version,
        )

    def fields(self, message: Field) -> Iterator[Field]:
        if message.wire != LENGTH:
            raise CheckpointError(f"byte {message.start} is no message")
        return read_fields(self.data, message.begin, message.end)

    def text(self, part: Field) -> str:
        try:
            return bytes(self.data[part.begin : part.end]).decode()
        except UnicodeDecodeError as error:
            raise CheckpointError(f"the text at byte {part.begin} is not UTF-8") from error

    def texts(self, message: Field, number: int) -> list[str]:
        return [self.text(f) for f in self.fields(message) if f.number == number] or [""]

    def node(self, span: Field) -> tuple[Node, Field | None]:
        """Return a node, and the tensor in it if it is a Constant."""
        texts: dict[int, list[str]] = {1: [], 2: [], 3: [""], 4: [""]}
        input_fields, captured, integers, scope = [], set[str](), {}, ""
        tensors: dict[str, Field] = {}
        for part in self.fields(span):
            if part.number in texts:
                texts[part.number].append(self.text(part))
                if part.number == 1:
                    input_fields.append(part)
            elif part.number == 5:
                name, tensor, integer = self.attribute(part, captured)
                integers[name] = integer
                if tensor is not None:
                    tensors[name] = tensor
            elif part.number == 9 and self.texts(part, 1)[-1] == "pkg.torch.onnx.name_scopes":
                scope = _module_of_scopes(self.texts(part, 2)[-1])
        operation, outputs = texts[4][-1], tuple(texts[2])
        constant = tensors.pop("value", None) if operation == "Constant" and outputs else None
        self.others += [self.tensor(tensor) for tensor in tensors.values()]
        node = Node(
            name=texts[3][-1],
            operation=operation,
            inputs=tuple(texts[1]),
            outputs=outputs,
            scope=scope,
            captured=frozenset(captured),
            attributes=integers,
            input_fields=tuple(input_fields),
            start=span.start,
            begin=span.begin,
            end=span.end,
        )
        return node, constant

    def attribute(self, span: Field, captured: set[str]) -> tuple[str, Field | None, int]:
        name, tensor, integer = "", None, 0
        for part in self.fields(span):
            match part.number:
                case 1:
                    name = self.text(part)
                case 3:
                    integer = part.value
                case 5:
                    tensor = part
                case 6 | 11:
                    self.capture(part, captured, 0)
        return name, tensor, integer

    def capture(self, graph: Field, captured: set[str], depth: int, node_number: int = 1) -> None:
        """Add the names that a subgraph's nodes read, its own among them, and note its tensors."""
        if depth > _MAX_DEPTH:
            raise CheckpointError("its subgraphs are nested too deeply")
        for part in self.fields(graph):
            if part.number == node_number:
                captured.update(self.texts(part, 1))
                for attribute in (inner for inner in self.fields(part) if inner.number == 5):
                    for inner in self.fields(attribute):
                        if inner.number in (6, 11):
                            self.capture(inner, captured, depth + 1)
                        elif inner.number == 5:
                            self.others.append(self.tensor(inner))
            elif node_number == 1 and part.number == 5:
                self.others.append(self.tensor(part))
            elif node_number == 1 and part.number == 12:
                captured.update(self.texts(part, 1))

    def tensor(self, span: Field, name: str = "") -> StoredTensor:
        shape: list[int] = []
        data_type, external = 0, dict[str, str]()
        payloads: dict[int, Field] = {}
        for part in self.fields(span):
            match part.number:
                case 1:
                    shape.extend(read_packed(self.data, part))
                case 2:
                    data_type = part.value
                case 8:
                    name = name or self.text(part)
                case 4 | 5 | 9 | 10:
                    payloads[part.number] = part
                case 13:
                    external[self.texts(part, 1)[-1]] = self.texts(part, 2)[-1]
        dtype = DTYPES.get(data_type, f"type {data_type}")
        if len(shape) > _MAX_RANK or math.prod(shape) > _MAX_ELEMENTS:
            raise CheckpointError(f"tensor {name} claims a shape of {len(shape)} axes, too large")
        size = math.prod(shape)
        length = size * BITS.get(dtype, 0) // 8
        if external:
            info = TensorInfo(name, dtype, tuple(shape), 0, length)
            return self.files.locate(info, external)
        for number, dtypes in _PAYLOADS.items():
            found = payloads.get(number)
            if found and found.wire == LENGTH and dtype in dtypes:
                if found.end - found.begin != length:
                    raise CheckpointError(
                        f"tensor {name} claims the shape {shape} of {dtype} in "
                        f"{found.end - found.begin} bytes"
                    )
                return StoredTensor(
                    TensorInfo(name, dtype, tuple(shape), found.begin, found.end), None
                )
        integers = payloads.get(5)
        if integers and integers.wire == LENGTH and dtype in _IN_INT32_DATA:
            info = TensorInfo(name, dtype, tuple(shape), integers.begin, integers.end)
            return StoredTensor(info, None, packed=True)
        obstacle = (
            f"{name} ({dtype}) is not stored as raw bytes; store it so, with "
            "tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), "
            "tensor.name)), and save the model"
        )
        return StoredTensor(TensorInfo(name, dtype, tuple(shape), 0, 0), None, obstacle)


def _check_order(nodes: list[Node]) -> None:
    """Check that each value is given once, and before it is read: so there is no cycle."""
    place: dict[str, int] = {}
    for number, node in enumerate(nodes):
        for name in filter(None, node.outputs):
            if place.setdefault(name, number) != number:
                raise CheckpointError(f"two nodes give {name!r}: it is no valid ONNX graph")
    for number, node in enumerate(nodes):
        for name in node.inputs:
            if place.get(name, -1) >= number:
                raise CheckpointError(f"{name!r} is read before it is given: no valid ONNX graph")


def _module_of_scopes(text: str) -> str:
    """Return the innermost module of a list such as ``['', 'bert', 'bert.pooler', 'linear']``."""
    modules = _QUOTED.findall(text)[:-1]
    return modules[-1] if modules else ""
