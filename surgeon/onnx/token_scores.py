"""A language model's graph extended to score itself, at the positions that are asked for alone."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

POSITIONS = "surgeon.positions"
"""Input, int64 (scored, 2): the sequence and the token of each scored position."""

LABELS = "surgeon.labels"
"""Input, int64 (scored,): the token expected there."""

LOSSES = "surgeon.losses"
"""Output, float32 (scored,): the cross-entropy in nats."""

GUESSES = "surgeon.guesses"
"""Output, int64 (scored,): the likeliest token."""

_AXIS = "surgeon.axis"
_AXES_ARE_INPUTS = {"ReduceLogSumExp": 18, "Squeeze": 13, "Unsqueeze": 13}  # from this opset on

# Operators that act on each position alone, whose first input carries the positions.
_POINTWISE = {"Add", "Sub", "Mul", "Div", "Tanh", "Cast", "Identity"}


def with_token_scores(model: onnx.ModelProto, output: str) -> None:
    """Add the loss and the best guess at chosen positions, and drop the logits.

    ``output`` is float of shape (sequences, tokens, vocabulary). The positions are gathered
    before the projection to the vocabulary where the graph's tail shows it, so that it is computed
    for no other, and from its result otherwise. The model is changed in place; it needs opset 11
    or later.
    """
    graph = model.graph
    opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    node, slot = _projection(graph, output)
    gather = helper.make_node("GatherND", ["", POSITIONS], ["surgeon.gathered"])
    if node is None:
        gather.input[0], scored = output, "surgeon.gathered"
    else:
        gather.input[0], scored = node.input[slot], output
        node.input[slot] = "surgeon.gathered"
    wide = "surgeon.scored"  # a float16 sum over a vocabulary is too coarse
    tail = [
        helper.make_node("Cast", [scored], [wide], to=TensorProto.FLOAT),
        helper.make_node("ArgMax", [wide], [GUESSES], axis=-1, keepdims=0),
        _along("ReduceLogSumExp", wide, "surgeon.sum", opset, keepdims=0),
        _along("Unsqueeze", LABELS, "surgeon.label_column", opset),
        helper.make_node(
            "GatherElements", [wide, "surgeon.label_column"], ["surgeon.found"], axis=-1
        ),
        _along("Squeeze", "surgeon.found", "surgeon.label_scores", opset),
        helper.make_node("Sub", ["surgeon.sum", "surgeon.label_scores"], [LOSSES]),
    ]
    place = (
        len(graph.node)
        if node is None
        else next(number for number, other in enumerate(graph.node) if other is node)
    )
    graph.node.insert(place, gather)
    graph.node.extend(tail)
    graph.initializer.append(helper.make_tensor(_AXIS, TensorProto.INT64, [1], [-1]))
    graph.input.extend(
        [
            helper.make_tensor_value_info(POSITIONS, TensorProto.INT64, ["scored", 2]),
            helper.make_tensor_value_info(LABELS, TensorProto.INT64, ["scored"]),
        ]
    )
    _forget_shapes(graph, gather.output[0])
    del graph.output[:]
    graph.output.extend(
        [
            helper.make_tensor_value_info(LOSSES, TensorProto.FLOAT, ["scored"]),
            helper.make_tensor_value_info(GUESSES, TensorProto.INT64, ["scored"]),
        ]
    )


def _along(
    operation: str, value: str, result: str, opset: int, **attributes: int
) -> onnx.NodeProto:
    """Make a node along the last axis, which is an input from some opset on."""
    if opset >= _AXES_ARE_INPUTS[operation]:
        return helper.make_node(operation, [value, _AXIS], [result], **attributes)
    return helper.make_node(operation, [value], [result], axes=[-1], **attributes)


def _forget_shapes(graph: onnx.GraphProto, name: str) -> None:
    """Drop the noted shapes of what is computed from a value, and no others.

    Without the others onnxruntime fuses fewer operators.
    """
    changed = {name}
    for node in graph.node:
        if not changed.isdisjoint(node.input):
            changed.update(node.output)
    kept = [value for value in graph.value_info if value.name not in changed]
    del graph.value_info[:]
    graph.value_info.extend(kept)


def _projection(graph: onnx.GraphProto, output: str) -> tuple[onnx.NodeProto | None, int]:
    """Find the product with the vocabulary, behind nothing but operators on each position."""
    makers = {name: node for node in graph.node for name in node.output}
    uses = [name for node in graph.node for name in node.input]
    constants = {tensor.name for tensor in graph.initializer}
    name = output
    while (node := makers.get(name)) is not None and uses.count(name) <= 1:
        if node.op_type == "MatMul":
            weight = node.input[1]
            fixed = weight in constants or _is_constant(makers.get(weight), constants)
            return (node, 0) if fixed else (None, 0)
        varying = [i for i, value in enumerate(node.input) if value and value not in constants]
        if node.op_type not in _POINTWISE or len(varying) != 1:
            return None, 0
        name = node.input[varying[0]]
    return None, 0


def _is_constant(node: onnx.NodeProto | None, constants: set[str]) -> bool:
    """Whether a node only rearranges an initializer: the tied embeddings, transposed."""
    return (
        node is not None
        and node.op_type in ("Transpose", "Identity", "Cast")
        and node.input[0] in constants
    )
