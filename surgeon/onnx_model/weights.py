"""The initializers of an ONNX file by name: reading them, and opening them to replacement."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx

from surgeon.errors import ExportError


def read_initializers(path: Path, names: Collection[str]) -> dict[str, npt.NDArray[Any]]:
    """Return the named initializers of an ONNX file, external data included.

    Raises:
        ExportError: one is not there under its name.
    """
    model = onnx.load(str(path), load_external_data=False)
    wanted = set(names)
    found = {
        tensor.name: onnx.numpy_helper.to_array(tensor, base_dir=str(path.parent))
        for tensor in model.graph.initializer
        if tensor.name in wanted
    }
    if missing := sorted(wanted - found.keys()):
        raise ExportError(f"{path}: no initializer is named {missing[0]}; export the model again")
    return found


def make_replaceable(model: onnx.ModelProto, names: Collection[str], label: str) -> None:
    """Let each run of an ONNX model replace the named initializers; changed in place.

    An initializer that is also a graph input is a default: a run that feeds the input overrides
    it (ONNX IR specification, "Graphs"). ``label`` is for errors.

    Raises:
        ExportError: one is not there under its name.
    """
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    inputs = {value.name for value in model.graph.input}
    for name in names:
        if name not in tensors:
            raise ExportError(f"{label}: no initializer is named {name}; export the model again")
        if name not in inputs:
            tensor = tensors[name]
            value = onnx.helper.make_tensor_value_info(name, tensor.data_type, tensor.dims)
            model.graph.input.append(value)
