"""The stored tensors of a checkpoint as values of a graph, and the nodes that convert and join."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from surgeon.model import Checkpoint
from surgeon.onnx.read_graph import DTYPES

_TYPES = {name: ir.DataType(number) for number, name in DTYPES.items()}


@dataclass
class References:
    """The tensors of a checkpoint as values of a graph, each made where it is first asked for."""

    graph: ir.Graph
    checkpoint: Checkpoint
    made: dict[str, ir.Value] = field(default_factory=dict)
    first: ir.Node = field(init=False)

    def __post_init__(self) -> None:
        """Note what the nodes made here go before, each behind those that it reads."""
        self.first = self.graph[0]

    def of(self, names: Sequence[str], dtype: ir.DataType | None) -> ir.Value:
        """Return stored tensors in a dtype; of several, each below the one before."""
        parts = [self._converted(name, dtype) for name in names]
        if len(parts) == 1:
            return parts[0]
        return self._given("Concat", parts, {"axis": 0}, "+".join(names), dtype)

    def _converted(self, name: str, dtype: ir.DataType | None) -> ir.Value:
        info = self.checkpoint.tensors[name]
        stored = _TYPES[info.dtype]
        if name not in self.made:
            shape, length = ir.Shape(info.shape), info.end - info.start
            tensor = ir.ExternalTensor("weights", 0, length, stored, shape=shape, name=name)
            value = ir.Value(name=name, const_value=tensor, shape=shape, type=ir.TensorType(stored))
            self.graph.register_initializer(value)
            self.made[name] = value
        if dtype in (None, stored):
            return self.made[name]
        return self._given("Cast", [self.made[name]], {"to": dtype}, f"{name}/as_{dtype}", dtype)

    def _given(
        self,
        operation: str,
        inputs: Sequence[ir.Value],
        attributes: dict[str, Any],
        name: str,
        dtype: ir.DataType | None,
    ) -> ir.Value:
        if name not in self.made:
            node = ir.node(operation, inputs, attributes)
            self.graph.insert_before(self.first, node)
            self.made[name] = node.outputs[0]
            node.name = node.outputs[0].name = name
            if dtype is not None:
                node.outputs[0].dtype = dtype
        return self.made[name]
