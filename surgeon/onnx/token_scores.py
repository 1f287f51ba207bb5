"""A language model's graph extended to score itself, at the positions that are asked for only."""

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
_GATHERED = "surgeon.gathered"
_AXES_ARE_INPUTS = {"ReduceLogSumExp": 18, "Squeeze": 13, "Unsqueeze": 13}  # from this opset on

# Operators that act on each position by itself, whose first input carries the positions.
_POINTWISE = {"Add", "Sub", "Mul", "Div", "Tanh", "Cast", "Identity"}
_REARRANGING = ("Transpose", "Identity", "Cast")


def with_token_scores(model: onnx.ModelProto, output: str) -> None:
    """Add the loss and the best guess at chosen positions, and drop the logits.

    ``output`` is float of shape (sequences, tokens, vocabulary). The positions are gathered
    before the projection to the vocabulary where the graph's tail shows it, so that it is computed
    for no other, and from its result otherwise. The model is changed in place; it needs opset 11
    or later.
    """
    graph, make, describe = model.graph, helper.make_node, helper.make_tensor_value_info
    opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    at = _projection(graph, output)
    if at is None:
        at, source, scored = len(graph.node), output, _GATHERED
    else:
        source, scored = graph.node[at].input[0], output
        graph.node[at].input[0] = _GATHERED
    graph.node.insert(at, make("GatherND", [source, POSITIONS], [_GATHERED]))
    wide = "surgeon.scored"  # a float16 sum over a vocabulary is too coarse
    graph.node.extend([
        make("Cast", [scored], [wide], to=TensorProto.FLOAT),
        make("ArgMax", [wide], [GUESSES], axis=-1, keepdims=0),
        _along("ReduceLogSumExp", wide, "surgeon.sum", opset, keepdims=0),
        _along("Unsqueeze", LABELS, "surgeon.label_column", opset),
        make("GatherElements", [wide, "surgeon.label_column"], ["surgeon.found"], axis=-1),
        _along("Squeeze", "surgeon.found", "surgeon.label_scores", opset),
        make("Sub", ["surgeon.sum", "surgeon.label_scores"], [LOSSES]),
    ])  # fmt: skip
    graph.initializer.append(helper.make_tensor(_AXIS, TensorProto.INT64, [1], [-1]))
    graph.input.append(describe(POSITIONS, TensorProto.INT64, ["scored", 2]))
    graph.input.append(describe(LABELS, TensorProto.INT64, ["scored"]))
    _forget_shapes(graph)
    del graph.output[:]
    graph.output.append(describe(LOSSES, TensorProto.FLOAT, ["scored"]))
    graph.output.append(describe(GUESSES, TensorProto.INT64, ["scored"]))


def _along(
    operation: str, value: str, result: str, opset: int, **attributes: int
) -> onnx.NodeProto:
    """Make a node along the last axis, which is an input from some opset on."""
    if opset >= _AXES_ARE_INPUTS[operation]:
        return helper.make_node(operation, [value, _AXIS], [result], **attributes)
    return helper.make_node(operation, [value], [result], axes=[-1], **attributes)


def _forget_shapes(graph: onnx.GraphProto) -> None:
    """Drop the noted shapes of what is computed from the gathered positions, and no others.

    Without the others onnxruntime fuses fewer operators.
    """
    changed = {_GATHERED}
    for node in graph.node:
        if not changed.isdisjoint(node.input):
            changed.update(node.output)
    kept = [value for value in graph.value_info if value.name not in changed]
    del graph.value_info[:]
    graph.value_info.extend(kept)


def _projection(graph: onnx.GraphProto, output: str) -> int | None:
    """Find the product with the vocabulary, behind nothing but operators on each position."""
    makers = {name: number for number, node in enumerate(graph.node) for name in node.output}
    reads = [name for node in graph.node for name in node.input]
    stored = {tensor.name for tensor in graph.initializer}
    name = output
    while name in makers and reads.count(name) <= 1:
        node = graph.node[makers[name]]
        if node.op_type == "MatMul":
            weight = node.input[1]
            while weight not in stored and weight in makers:  # converted, transposed
                before = graph.node[makers[weight]]
                weight = before.input[0] if before.op_type in _REARRANGING else ""
            return makers[name] if weight in stored else None
        varying = [value for value in node.input if value and value not in stored]
        if node.op_type not in _POINTWISE or len(varying) != 1:
            return None
        name = varying[0]
    return None
