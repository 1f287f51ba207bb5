"""The initializers of an ONNX file by name: reading them, and opening them to replacement."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx

from surgeon.errors import CheckpointError, ExportError
from surgeon.model import Checkpoint
from surgeon.onnx.file_graph import tensor_files
from surgeon.onnx.read_graph import mapped, read_file_graph
from surgeon.onnx.wire import Buffer, encode_field, read_fields

# Field numbers of onnx.proto: from a model to the tensors of its graph, and in a tensor
_TO_TENSORS, _RAW_DATA, _DATA_LOCATION = (7, 5), 9, 14
_UNLISTED = 4  # IR version from which on an initializer need not be an input
_LARGE = 2**16  # bytes; smaller weights are read at once


def read_initializers(
    path: Path, names: Collection[str], root: Path | None = None
) -> dict[str, npt.NDArray[Any]]:
    """Return the named initializers of an ONNX file, external data included, and read no other.

    ``root`` is as in ``read_file_graph``.

    Raises:
        CheckpointError: it is not an ONNX file, or a tensor is not where it claims to be.
        ExportError: one is not there under its name.
    """
    files = tensor_files(read_file_graph(path, root))
    found = {name: file.read(name) for file in files for name in file.tensors if name in names}
    if missing := sorted(set(names) - found.keys()):
        raise ExportError(f"{path}: no initializer is named {missing[0]}; export the model again")
    return found


def find_differing(
    path: Path, checkpoint: Checkpoint, names: Collection[str], dtype: str
) -> str | None:
    """Return the first named initializer that is not, bit for bit in a dtype, the tensor.

    Raises:
        CheckpointError: as ``read_initializers``.
        ExportError: as ``read_initializers``.
    """
    for name, values in read_initializers(path, names, checkpoint.directory).items():
        held, tensor = values.astype(dtype), checkpoint.read(name).astype(dtype)
        if held.shape != tensor.shape or held.tobytes() != tensor.tobytes():
            return name
    return None


def load_graph(path: Path) -> onnx.ModelProto:
    """Load an ONNX model whose large weights stay in their file, for onnxruntime to map there.

    Each becomes external data in the ONNX file itself
    (https://onnx.ai/onnx/repo-docs/ExternalData.html): the session that is made of the model needs
    the file's folder. A model so loaded is as small as its graph.

    Raises:
        CheckpointError: it is not an ONNX file.
    """
    model = onnx.ModelProto()
    with mapped(path) as data:
        try:
            model.ParseFromString(_without_weights(data, 0, len(data), path.name, _TO_TENSORS))
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error
    return model


def _without_weights(
    data: Buffer, begin: int, end: int, location: str, inside: tuple[int, ...]
) -> bytes:
    """Return a message with the raw data of its large tensors, ``inside`` it, declared outside."""
    parts = list(read_fields(data, begin, end))
    if inside:
        number, *deeper = inside
        return b"".join(
            encode_field(number, _without_weights(data, p.begin, p.end, location, tuple(deeper)))
            if p.number == number and p.end - p.begin > _LARGE
            else data[p.start : p.end]
            for p in parts
        )
    raw = [part for part in parts if part.number == _RAW_DATA]
    external = [part.value for part in parts if part.number == _DATA_LOCATION][-1:] == [1]
    if external or len(raw) != 1:  # its numbers are in a file already, or in another field
        return data[begin:end]
    tensor = onnx.TensorProto()
    tensor.ParseFromString(b"".join(data[p.start : p.end] for p in parts if p is not raw[0]))
    tensor.data_location = onnx.TensorProto.EXTERNAL
    del tensor.external_data[:]
    length = raw[0].end - raw[0].begin
    for key, value in {"location": location, "offset": raw[0].begin, "length": length}.items():
        tensor.external_data.add(key=key, value=str(value))
    serialized: bytes = tensor.SerializeToString()
    return serialized


def make_replaceable(model: onnx.ModelProto, names: Collection[str], label: str) -> None:
    """Let each run of an ONNX model replace the named initializers; changed in place.

    An initializer that is also a graph input is a default: a run that feeds the input overrides
    it (ONNX IR specification, "Graphs"). What a Constant node gives, and what is stored in another
    dtype than the graph computes in, becomes an input that every run has to feed. ``label`` is for
    errors.

    Raises:
        ExportError: one is not there under its name.
    """
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    if model.ir_version < _UNLISTED:
        # Files of before list all initializers among the inputs, where no run could replace one.
        fed = [value for value in model.graph.input if value.name not in tensors]
        del model.graph.input[:]
        model.graph.input.extend(fed)
        model.ir_version = _UNLISTED
    for node in list(model.graph.node):
        if node.op_type == "Constant" and node.output[0] in names:
            tensors[node.output[0]] = next(a.t for a in node.attribute if a.name == "value")
            model.graph.node.remove(node)
    inputs = {value.name for value in model.graph.input}
    converted = _converted(model.graph, names)
    for name in names:
        if name not in tensors:
            raise ExportError(f"{label}: no initializer is named {name}; export the model again")
        if name not in inputs:
            tensor = tensors[name]
            dtype = converted.get(name, tensor.data_type)
            value = onnx.helper.make_tensor_value_info(name, dtype, tensor.dims)
            model.graph.input.append(value)
            if name in converted:
                model.graph.initializer.remove(tensor)


def _converted(graph: onnx.GraphProto, names: Collection[str]) -> dict[str, int]:
    """Return the dtype to which each of some initializers is converted before it is read.

    The conversions are removed: what takes the place of these is fed in the dtype of the graph.
    """
    casts = {
        node.output[0]: node
        for node in graph.node
        if node.op_type == "Cast" and node.input[0] in names
    }
    for node in casts.values():
        graph.node.remove(node)
    for node in graph.node:
        node.input[:] = [casts[n].input[0] if n in casts else n for n in node.input]
    types = (
        (node.input[0], onnx.helper.get_node_attr_value(node, "to")) for node in casts.values()
    )
    return dict(types)
