"""The initializers of an ONNX file by name: reading them, and opening them to replacement."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx

from surgeon.errors import CheckpointError, ExportError
from surgeon.onnx.read_graph import mapped, read_file_graph
from surgeon.onnx.tensor_files import tensor_files
from surgeon.onnx.wire import (
    Buffer,
    Field,
    encode_field,
    read_fields,
)

# Field numbers of onnx.proto
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9
_UNLISTED = 4  # IR version from which on an initializer need not be an input
_LARGE = 2**16  # bytes; smaller weights are read at once


def read_initializers(path: Path, names: Collection[str]) -> dict[str, npt.NDArray[Any]]:
    """Return the named initializers of an ONNX file, external data included, and read no other.

    Raises:
        CheckpointError: it is no ONNX file, or a tensor does not lie where it claims.
        ExportError: one is not there under its name.
    """
    files = tensor_files(read_file_graph(path))
    found = {name: file.read(name) for file in files for name in file.tensors if name in names}
    if missing := sorted(set(names) - found.keys()):
        raise ExportError(f"{path}: no initializer is named {missing[0]}; export the model again")
    return found


def load_graph(path: Path) -> onnx.ModelProto:
    """Load an ONNX model whose large weights stay in their file, for onnxruntime to map there.

    Each becomes external data in the ONNX file itself
    (https://onnx.ai/onnx/repo-docs/ExternalData.html): the session that is made of the model needs
    the file's folder. A model so loaded is as small as its graph.

    Raises:
        CheckpointError: it is no ONNX file.
    """
    model = onnx.ModelProto()
    try:
        with mapped(path) as data:
            model.ParseFromString(b"".join(_with_graph(data, path.name)))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return model


def _with_graph(data: Buffer, location: str) -> Iterator[bytes]:
    for part in read_fields(data, 0, len(data)):
        if part.number == _GRAPH:
            yield encode_field(_GRAPH, b"".join(_graph(data, part, location)))
        else:
            yield data[part.start : part.end]


def _graph(data: Buffer, graph: Field, location: str) -> Iterator[bytes]:
    for part in read_fields(data, graph.begin, graph.end):
        if part.number == _INITIALIZER and part.end - part.begin > _LARGE:
            yield encode_field(_INITIALIZER, _outside(data, part, location))
        else:
            yield data[part.start : part.end]


def _outside(data: Buffer, initializer: Field, location: str) -> bytes:
    """Return a tensor with its raw data, if it has that, declared to lie outside."""
    parts = list(read_fields(data, initializer.begin, initializer.end))
    raw = [part for part in parts if part.number == _RAW_DATA]
    if len(raw) != 1:  # its numbers are in another field, or in a file already
        return data[initializer.begin : initializer.end]
    (place,) = raw
    tensor = onnx.TensorProto()
    tensor.ParseFromString(b"".join(data[p.start : p.end] for p in parts if p is not place))
    tensor.data_location = onnx.TensorProto.EXTERNAL
    length = place.end - place.begin
    for key, value in {"location": location, "offset": place.begin, "length": length}.items():
        tensor.external_data.add(key=key, value=str(value))
    serialized: bytes = tensor.SerializeToString()
    return serialized


def make_replaceable(model: onnx.ModelProto, names: Collection[str], label: str) -> None:
    """Let each run of an ONNX model replace the named initializers; changed in place.

    An initializer that is also a graph input is a default: a run that feeds the input overrides
    it (ONNX IR specification, "Graphs"). What a Constant node gives becomes an input that every
    run has to feed. ``label`` is for errors.

    Raises:
        ExportError: one is not there under its name.
    """
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    _list_no_initializer(model)
    for node in list(model.graph.node):
        if node.op_type == "Constant" and node.output[0] in names:
            tensors[node.output[0]] = next(a.t for a in node.attribute if a.name == "value")
            model.graph.node.remove(node)
    inputs = {value.name for value in model.graph.input}
    for name in names:
        if name not in tensors:
            raise ExportError(f"{label}: no initializer is named {name}; export the model again")
        if name not in inputs:
            tensor = tensors[name]
            value = onnx.helper.make_tensor_value_info(name, tensor.data_type, tensor.dims)
            model.graph.input.append(value)


def _list_no_initializer(model: onnx.ModelProto) -> None:
    """Take initializers out of the inputs, where files of before IR version 4 list them all.

    No run could replace one there.
    """
    if model.ir_version < _UNLISTED:
        names = {tensor.name for tensor in model.graph.initializer}
        kept = [value for value in model.graph.input if value.name not in names]
        del model.graph.input[:]
        model.graph.input.extend(kept)
        model.ir_version = _UNLISTED
