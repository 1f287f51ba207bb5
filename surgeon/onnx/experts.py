"""Mixtures of experts as a graph: tensors of their own, and only the tokens that chose an expert.

transformers merges the tensors of a layer's experts, and finds each one's tokens by a loop that no
graph can hold. So a layer's experts are one operator to the exporter, which sees none of their
tensors, and what an expert does is exported once and put in for each: models have thousands.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from surgeon.errors import ExportError
from surgeon.model import Checkpoint
from surgeon.onnx.read_graph import ONNX_DTYPES
from surgeon.torch_model.loading import TorchModel

_TYPES = {name: ir.DataType(number) for number, name in ONNX_DTYPES.items()}


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

    def part(self, name: str, number: int, dtype: ir.DataType | None) -> ir.Value:
        """Return an expert's part of the stored tensor of all of a layer, in a dtype."""
        scalar = _initializer(self.graph, f"expert_{number}/scalar", np.array(number))
        inputs = [self._converted(name, dtype), scalar]
        return self._given("Gather", inputs, {"axis": 0}, f"{name}.{number}", dtype)

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


_DOMAIN, _OPERATOR = "surgeon", "Experts"  # which no finished graph has
MATRICES = ("gate_up_proj", "down_proj")
"""What transformers calls the merged tensors of a layer's experts."""
_BIASES = tuple(f"{name}_bias" for name in MATRICES)

# What each is of an expert in the files: of one stored matrix, or of one below the other.
_PARTS = {
    "gate_up_proj": (("gate_proj", "up_proj"), ("w1", "w3")),
    "down_proj": (("down_proj",), ("w2",)),
}
_STORED = re.compile(
    r"(?:.*\.)?(?P<layer>\d+)\..*\bexperts\.(?P<expert>\d+)\.(?P<matrix>\w+)\.weight"
)
_ROWS = 4  # of the example that an expert is exported with


class Experts(torch.nn.Module):  # type: ignore[misc]  # torch is untyped to mypy here
    """The experts of a layer in place of transformers' own. Runs nowhere but in the exporter.

    ``tensors`` are the names of the merged ones: the matrices, then the biases, if there are any.
    """

    def __init__(self, path: str, merged: Any) -> None:
        super().__init__()
        self.path = path
        self.count = len(merged.down_proj)
        self.tensors = tuple(f"{path}.{name}" for name in _tensors(merged))

    def forward(
        self, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
    ) -> torch.Tensor:
        """Return the weighted sum of the chosen experts, (tokens, hidden).

        ``hidden_states`` is (tokens, hidden), ``top_k_index`` and ``top_k_weights`` are (tokens,
        chosen): which experts, and how much of each.
        """
        # In float32: onnxruntime's CPU provider adds to rows in no float16.
        total = torch.zeros_like(hidden_states, dtype=torch.float32)
        weights = hidden_states.new_zeros(self.count, hidden_states.shape[0])
        weights = weights.scatter(0, top_k_index.t(), top_k_weights.t().to(weights.dtype))
        summed: torch.Tensor = torch.onnx.ops.symbolic(
            f"{_DOMAIN}::{_OPERATOR}",
            (total, hidden_states, weights),
            attrs={"path": self.path},
            dtype=total.dtype,
            shape=total.shape,
            version=1,
        )
        return summed.to(hidden_states.dtype)


class _Expert(torch.nn.Module):  # type: ignore[misc]
    """What the expert of a ``number`` adds to the sum, at the tokens that chose it.

    ``weights`` (experts, tokens) are 0 where they did not.
    """

    def __init__(self, merged: Any) -> None:
        super().__init__()
        self.activate = merged._apply_gate  # noqa: SLF001  # transformers has no other name for it
        self.transposed = merged.is_transposed

    def forward(
        self,
        total: torch.Tensor,
        hidden: torch.Tensor,
        weights: torch.Tensor,
        number: torch.Tensor,
        gate_up: torch.Tensor,
        down: torch.Tensor,
        gate_up_bias: torch.Tensor | None = None,
        down_bias: torch.Tensor | None = None,
    ) -> torch.Tensor:
        weight = weights.index_select(0, number).squeeze(0)
        (tokens,) = torch.where(weight)
        gate_up, down = (m.t() if self.transposed else m for m in (gate_up, down))
        inner = self.activate(torch.nn.functional.linear(hidden[tokens], gate_up, gate_up_bias))
        output = torch.nn.functional.linear(inner, down, down_bias) * weight[tokens, None]
        return total.index_add(0, tokens, output.to(total.dtype))


def _tensors(merged: Any) -> tuple[str, ...]:
    return (*MATRICES, *(_BIASES if merged.has_bias else ()))


def fold_experts(loaded: TorchModel, mode: FakeTensorMode) -> ir.Graph | None:
    """Make each layer's experts one operator, and return what one expert does.

    A model without experts is left as it is, with None. ``mode`` is that of its parameters.

    Raises:
        ExportError: they are of another kind than those of the families that have them.
    """
    found = [(path, m) for path, m in loaded.model.named_modules() if hasattr(m, "has_gate")]
    for path, merged in found:
        if not merged.has_gate or getattr(merged, "has_post_expert_norm", False):
            raise ExportError(
                f"{loaded.checkpoint.name}: {type(merged).__name__} is not two matrices an expert "
                "with a gate between them, which is all that is exported"
            )
        loaded.model.set_submodule(path, Experts(path, merged))
    return _export_one(found[0][1], mode) if found else None


def expand_experts(
    model: ir.Model, loaded: TorchModel, one: ir.Graph, references: References
) -> None:
    """Replace the operator of each layer with the nodes of its experts, on their stored tensors."""
    graph = model.graph
    stored = _stored_parts(loaded.checkpoint)
    shared = _take_initializers(graph, one)
    dtype = one.inputs[-1 - len(shared)].dtype
    for layer in [node for node in graph if node.domain == _DOMAIN]:
        experts = loaded.model.get_submodule(layer.attributes.get_string("path"))
        total, hidden, weights = (value for value in layer.inputs if value is not None)
        for number in range(experts.count):
            which = _initializer(graph, f"expert_{number}", np.array([number]))
            tensors = [
                references.part(source, number, dtype)
                if (source := loaded.sources.get(name))
                else references.of(_find_parts(stored, name, number), dtype)
                for name in experts.tensors
            ]
            inputs = [total, hidden, weights, which, *tensors, *shared]
            total = _insert(graph, layer, one, inputs, f"{experts.path}.{number}")
        ir.convenience.replace_all_uses_with(layer.outputs[0], total)
        graph.remove(layer, safe=True)
    del model.opset_imports[_DOMAIN]


def _stored_parts(checkpoint: Checkpoint) -> dict[tuple[str, int, str], str]:
    """Return the stored matrices of experts by layer, number and what they are called there."""
    found = {}
    for name in checkpoint.tensors:
        if match := _STORED.fullmatch(name):
            found[match["layer"], int(match["expert"]), match["matrix"]] = name
    return found


def _find_parts(
    stored: Mapping[tuple[str, int, str], str], merged: str, expert: int
) -> tuple[str, ...]:
    """Return which stored tensors an expert's part of a merged one is, in order.

    Raises:
        ExportError: they have other names than those of the families that have experts.
    """
    layer = next(part for part in merged.split(".") if part.isdecimal())
    for names in _PARTS[merged.rpartition(".")[2]]:
        keys = [(layer, expert, name) for name in names]
        if stored.keys() >= set(keys):
            return tuple(stored[key] for key in keys)
    raise ExportError(f"no tensors are named as those of expert {expert} in {merged} usually are")


def _insert(
    graph: ir.Graph, before: ir.Node, one: ir.Graph, inputs: Sequence[ir.Value], name: str
) -> ir.Value:
    """Insert a copy of the nodes of ``one``, and return what they give."""
    copy = one.clone()
    for value, given in zip(copy.inputs, inputs, strict=True):
        ir.convenience.replace_all_uses_with(value, given)
    (output,) = copy.outputs
    nodes = list(copy)
    copy.outputs.clear()
    copy.remove(nodes)
    for node in nodes:
        node.name = f"{name}/{node.name}"
        for value in node.outputs:
            value.name = f"{name}/{value.name}"
    graph.insert_before(before, nodes)
    return output


def _take_initializers(graph: ir.Graph, one: ir.Graph) -> list[ir.Value]:
    """Move the constants of ``one`` to ``graph``; they become further inputs of it."""
    moved = list(one.initializers.values())
    one.initializers.clear()
    one.inputs.extend(moved)
    return [
        _initializer(graph, f"expert/{value.name}", value.const_value.numpy())
        for value in moved
        if value.const_value is not None
    ]


def _initializer(graph: ir.Graph, name: str, content: npt.NDArray[Any]) -> ir.Value:
    """Return the initializer of a name, made the first time."""
    if name not in graph.initializers:
        value = ir.Value(name=name, const_value=ir.tensor(content, name=name))
        graph.register_initializer(value)
    return graph.initializers[name]


def _export_one(merged: Any, mode: FakeTensorMode) -> ir.Graph:
    with mode:
        tensors = [torch.empty_like(getattr(merged, name)[0]) for name in _tensors(merged)]
        gate_up = tensors[0]
        rows = gate_up.new_zeros(_ROWS, gate_up.shape[0 if merged.is_transposed else 1])
        total = rows.to(torch.float32, copy=True)
        weights, number = gate_up.new_ones(2, _ROWS), torch.zeros(1, dtype=torch.int64)
    dynamic = torch.export.Dim.DYNAMIC
    program = torch.onnx.export(
        _Expert(merged).eval(),
        (total, rows, weights, number, *tensors),
        dynamic_shapes=(
            {0: dynamic},
            {0: dynamic},
            {0: dynamic, 1: dynamic},
            {},
            *({} for _ in tensors),
        ),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    graph: ir.Graph = program.model.graph
    for node in graph.all_nodes():
        for value in node.outputs:
            value.shape = None  # each expert has its own number of tokens
    return graph
