"""Mixtures of experts as a graph: tensors of their own, and only the tokens that chose an expert.

transformers merges the tensors of a layer's experts, and finds each one's tokens by a loop that no
graph can hold. So a layer's experts are one operator to the exporter, which sees none of their
tensors, and what an expert does is exported once and put in for each: models have thousands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch

from surgeon.errors import ExportError
from surgeon.torch_model.loading import TorchModel
from surgeon.torch_model.parameters import Parameter

_DOMAIN, _OPERATOR = "surgeon", "Experts"  # which no finished graph has
_MATRICES = ("gate_up_proj", "down_proj")
_OTHERS = ("has_bias", "is_transposed", "has_post_expert_norm")
_ROWS = 4  # of the example that an expert is exported with


class Experts(torch.nn.Module):  # type: ignore[misc]  # torch is untyped to mypy here
    """The experts of a layer in place of transformers' own. Runs nowhere but in the exporter.

    ``tensors`` are those of each expert, by the name of the merged one: (2 × inner, hidden), then
    (hidden, inner). They are views of it and no parameters, so that the exporter leaves them to
    ``expand_experts``.
    """

    def __init__(self, path: str, merged: Any) -> None:
        super().__init__()
        self.path = path
        self.count = len(merged.down_proj)
        self.tensors: dict[str, tuple[torch.Tensor, ...]] = {
            f"{path}.{name}": getattr(merged, name).detach().unbind() for name in _MATRICES
        }

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

    def forward(
        self,
        total: torch.Tensor,
        hidden: torch.Tensor,
        weights: torch.Tensor,
        number: torch.Tensor,
        gate_up: torch.Tensor,
        down: torch.Tensor,
    ) -> torch.Tensor:
        weight = weights.index_select(0, number).squeeze(0)
        (tokens,) = torch.where(weight)
        inner = self.activate(torch.nn.functional.linear(hidden[tokens], gate_up))
        output = torch.nn.functional.linear(inner, down) * weight[tokens, None]
        return total.index_add(0, tokens, output.to(total.dtype))


def fold_experts(loaded: TorchModel) -> ir.Graph | None:
    """Make each layer's experts one operator, and return what one expert does.

    A model without experts is left as it is, with None.

    Raises:
        ExportError: they are of another kind than those of the families that have them.
    """
    found = [(path, m) for path, m in loaded.model.named_modules() if hasattr(m, "has_gate")]
    for path, merged in found:
        if not merged.has_gate or any(getattr(merged, fact, False) for fact in _OTHERS):
            raise ExportError(
                f"{loaded.checkpoint.name}: {type(merged).__name__} is not two matrices an expert "
                "with a gate between them, which is all that is exported"
            )
        loaded.model.set_submodule(path, Experts(path, merged))
    return _export_one(found[0][1]) if found else None


def expand_experts(model: ir.Model, loaded: TorchModel, one: ir.Graph) -> None:
    """Replace the operator of each layer with the nodes of its experts.

    Their editable tensors become inputs of the graph, so that its inputs are those of the model and
    all of ``loaded.parameters`` in order; the others become initializers.
    """
    graph = model.graph
    parameters = loaded.parameters.values()
    editable = {
        part: ir.Value(name=f"{part.name}.{part.expert}")
        for part in parameters
        if part.expert is not None
    }
    shared = _take_initializers(graph, one)
    for layer in [node for node in graph if node.domain == _DOMAIN]:
        experts = loaded.model.get_submodule(layer.attributes.get_string("path"))
        total, hidden, weights = (value for value in layer.inputs if value is not None)
        for number in range(experts.count):
            which = _initializer(graph, f"expert_{number}", np.array([number]))
            tensors = [
                editable.get(Parameter(name, number))
                or _initializer(graph, f"{name}.{number}", parts[number].numpy())
                for name, parts in experts.tensors.items()
            ]
            inputs = [total, hidden, weights, which, *tensors, *shared]
            total = _insert(graph, layer, one, inputs, f"{experts.path}.{number}")
        ir.convenience.replace_all_uses_with(layer.outputs[0], total)
        graph.remove(layer, safe=True)
    taken = len(loaded.graph_inputs)
    tokens, vectors = graph.inputs[:taken], iter(graph.inputs[taken:])
    graph.inputs[:] = [*tokens, *(editable.get(part) or next(vectors) for part in parameters)]
    del model.opset_imports[_DOMAIN]


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


def _export_one(merged: Any) -> ir.Graph:
    gate_up, down = merged.gate_up_proj.detach()[0], merged.down_proj.detach()[0]
    rows = gate_up.new_zeros(_ROWS, gate_up.shape[1])
    total = rows.to(torch.float32, copy=True)
    dynamic = torch.export.Dim.DYNAMIC
    program = torch.onnx.export(
        _Expert(merged).eval(),
        (total, rows, gate_up.new_ones(2, _ROWS), torch.tensor([0]), gate_up, down),
        dynamic_shapes=({0: dynamic}, {0: dynamic}, {0: dynamic, 1: dynamic}, {}, {}, {}),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    graph: ir.Graph = program.model.graph
    for node in graph.all_nodes():
        for value in node.outputs:
            value.shape = None  # each expert has its own number of tokens
    return graph
