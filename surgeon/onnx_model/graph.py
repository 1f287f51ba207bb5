"""The exported graph, tidied: names that people know, and no trace of the machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt
import onnx_ir as ir


def name_values(
    model: ir.Model,
    inputs: Sequence[str],
    vectors: Mapping[str, npt.NDArray[Any]],
    outputs: Sequence[str],
) -> None:
    """Name the inputs and the outputs, and turn the vectors' inputs into initializers.

    The graph's inputs are ``inputs`` followed by ``vectors``, in order; each vector's key becomes
    its name, each value its content.
    """
    graph = model.graph
    values = list(graph.inputs)
    for value, name in zip(values, (*inputs, *vectors), strict=True):
        value.name = name
        if name in vectors:
            graph.inputs.remove(value)
            value.const_value = ir.tensor(vectors[name], name=name)
            graph.register_initializer(value)
    for value, name in zip(graph.outputs, outputs, strict=True):
        value.name = name


def strip_traces(model: ir.Model) -> None:
    """Remove the exporter's stack traces: paths of this machine, and a fifth of a small file."""
    graphs: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for graph in graphs:
        graph.metadata_props.clear()
        for node in graph.all_nodes():
            node.metadata_props.clear()
            node.doc_string = None
            for value in node.outputs:
                value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.metadata_props.clear()
