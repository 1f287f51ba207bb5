"""Graph → ``model.onnx`` and the weights it refers to: a view on safetensors files, or a copy.

In a graph that is kept, each weight is an external tensor under its checkpoint name; where that
lies is filled in here (https://onnx.ai/onnx/repo-docs/ExternalData.html). It is used as it is
stored: what transposes, joins or converts it are nodes, which onnxruntime folds when it loads.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from surgeon.errors import ExportError
from surgeon.model import Checkpoint, TensorFile, TensorInfo
from surgeon.model.pickle_file import PickleFile
from surgeon.model.tensors import BITS, open_safetensors

MODEL = "model.onnx"
DATA = f"{MODEL}_data"
"""The name that transformers.js and Optimum look for; of further files, ``_1`` and so on follow."""

Place: TypeAlias = Callable[[TensorFile, Path], None]
"""Puts the content of a weight file, as safetensors, at a path: by a link or a copy."""

_INLINE_LIMIT = 1_500_000_000  # bytes; protobuf holds 2 GiB, beyond this weights go beside it
_ALIGNMENT = 64  # bytes, for any dtype and for what computes on several numbers at once


def weights_of(model: onnx.ModelProto) -> list[TensorProto]:
    """Return the weights of a graph: its external tensors, each named as in the checkpoint."""
    external = TensorProto.EXTERNAL
    return [tensor for tensor in model.graph.initializer if tensor.data_location == external]


def write_view(
    model: onnx.ModelProto, checkpoint: Checkpoint, folder: Path, place: Place
) -> tuple[str, ...]:
    """Write a graph, and a data file for each weight file that it reads.

    Returns the names of the weight files whose tensors do not lie at multiples of their elements'
    sizes: of these the data file is not the weight file, but has the tensors further apart.
    """
    weights, moved = weights_of(model), []
    files = [f for f in checkpoint.files if any(w.name in f.tensors for w in weights)]
    for number, file in enumerate(files):
        name = f"{DATA}_{number}" if number else DATA
        read = [weight for weight in weights if weight.name in file.tensors]
        if isinstance(file, PickleFile) or all(_aligned(file.tensors[w.name]) for w in read):
            place(file, folder / name)
            tensors = open_safetensors(folder / name).tensors
            for weight in read:
                _refer(weight, name, tensors[weight.name].start, tensors[weight.name].end)
        else:
            moved.append(file.path.name)
            with (folder / name).open("xb") as data:
                for weight in read:
                    start = data.seek(-data.tell() % _ALIGNMENT, 1)
                    data.writelines(file.pieces(weight.name))
                    _refer(weight, name, start, data.tell())
    (folder / MODEL).write_bytes(model.SerializeToString())
    return tuple(moved)


def _aligned(info: TensorInfo) -> bool:
    return info.start % max(1, BITS[info.dtype] // 8) == 0


def _refer(weight: TensorProto, name: str, start: int, end: int) -> None:
    del weight.external_data[:]
    for key, value in {"location": name, "offset": start, "length": end - start}.items():
        weight.external_data.add(key=key, value=str(value))


def write_standalone(
    model: onnx.ModelProto, checkpoint: Checkpoint, folder: Path, kept: Collection[str]
) -> None:
    """Write a graph with its weights in it, in the dtype in which it computes.

    Weights that are only read transposed are so stored, under the name of what was transposed, as
    tools for quantization want them. Those in ``kept`` stay as they are. Weights of more than
    1.5 GB lie beside the graph.

    Raises:
        ExportError: a weight is too large for that dtype.
    """
    weights = {weight.name: weight for weight in weights_of(model)}
    dtypes = _drop_casts(model.graph, weights)
    turned = _drop_transposes(model.graph, weights.keys() - set(kept))
    size = sum(np.prod(w.dims) * dtypes[name].itemsize for name, w in weights.items())
    beside = (folder / DATA).open("xb") if size > _INLINE_LIMIT else None
    try:
        for name, weight in weights.items():
            values = _read(checkpoint, weight, dtypes[name])
            if name in turned:
                values, weight.name = values.transpose(turned[name][1]), turned[name][0]
            weight.dims[:] = values.shape
            weight.data_type = helper.np_dtype_to_tensor_dtype(dtypes[name])
            if beside is None:
                del weight.external_data[:]
                weight.data_location = TensorProto.DEFAULT
                weight.raw_data = values.tobytes()
            else:
                start = beside.seek(-beside.tell() % _ALIGNMENT, 1)
                beside.write(values.tobytes())
                _refer(weight, DATA, start, beside.tell())
    finally:
        if beside is not None:
            beside.close()
    (folder / MODEL).write_bytes(model.SerializeToString())


def _read(checkpoint: Checkpoint, weight: TensorProto, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    raw = b"".join(checkpoint.homes[weight.name].pieces(weight.name))
    stored = helper.tensor_dtype_to_np_dtype(weight.data_type)
    values = np.frombuffer(raw, stored).reshape(tuple(weight.dims))
    with np.errstate(over="ignore"):
        converted: npt.NDArray[Any] = values.astype(dtype, copy=False)
    beyond = np.isfinite(values) & ~np.isfinite(converted) if converted is not values else None
    if beyond is not None and beyond.any():
        raise ExportError(
            f"{checkpoint.where(weight.name)}: {weight.name} holds {beyond.sum()} of {values.size} "
            f"values that {dtype} cannot hold"
        )
    return converted


def _drop_casts(
    graph: onnx.GraphProto, weights: Mapping[str, TensorProto]
) -> dict[str, np.dtype[Any]]:
    """Have readers of a converted weight read the weight; returns the dtype that each then has."""
    types = {name: weight.data_type for name, weight in weights.items()}
    converted = {}
    for node in list(graph.node):
        if node.op_type == "Cast" and node.input[0] in weights:
            converted[node.output[0]] = node.input[0]
            types[node.input[0]] = helper.get_node_attr_value(node, "to")
            graph.node.remove(node)
    for node in graph.node:
        node.input[:] = [converted.get(name, name) for name in node.input]
    return {name: helper.tensor_dtype_to_np_dtype(number) for name, number in types.items()}


def _drop_transposes(
    graph: onnx.GraphProto, weights: Collection[str]
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Remove what transposes a weight that nothing else reads; returns the results and the axes."""
    readers = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    turned = {}
    for name in weights:
        if [node.op_type for node in readers[name]] == ["Transpose"]:
            (node,) = readers[name]
            turned[name] = (node.output[0], tuple(helper.get_node_attr_value(node, "perm")))
            graph.node.remove(node)
    return turned
