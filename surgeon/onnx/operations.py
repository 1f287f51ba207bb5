"""The norms and dense layers of an ONNX graph, in whatever form an exporter or a fusion left them.

A norm is one node (LayerNormalization, RMSNormalization, onnxruntime's fused ones), or it is
decomposed, as exporters below opset 17 write it: the scale is found above the square root of a
mean of squares, the gain and the bias below the division.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from surgeon.families import Kind
from surgeon.onnx.file_graph import FileGraph

Use: TypeAlias = tuple[int, int]
"""Where a value is read: the number of a node, and of its input."""


@dataclass(frozen=True)
class Operation:
    """A norm or a dense layer.

    ``reads`` are the values that it works on, ``result`` what it gives. ``gain`` and ``bias`` are
    where its parameters are read; for a dense layer the gain is the weight, of which the dimension
    indexes ``axis``. ``embeds`` marks the fused norm of the embeddings.
    """

    kind: Kind
    node: int
    reads: tuple[str, ...]
    result: str
    gain: Use
    bias: Use | None
    axis: int = 0
    embeds: bool = False


@dataclass(frozen=True)
class _Fused:
    """The signature of a norm that is one node: the numbers of its inputs."""

    kind: Kind
    reads: tuple[int, ...]
    gain: int
    bias: int | None


# The ONNX operators and onnxruntime's contrib operators (docs/ContribOperators.md).
_FUSED = {
    "LayerNormalization": _Fused("layernorm", (0,), 1, 2),
    "SimplifiedLayerNormalization": _Fused("rmsnorm", (0,), 1, None),
    "RMSNormalization": _Fused("rmsnorm", (0,), 1, None),
    "SkipLayerNormalization": _Fused("layernorm", (0, 1), 2, 3),
    "SkipSimplifiedLayerNormalization": _Fused("rmsnorm", (0, 1), 2, None),
    "EmbedLayerNormalization": _Fused("layernorm", (), 5, 6),
}
_SKIP_BIAS = {"SkipLayerNormalization": 4, "SkipSimplifiedLayerNormalization": 3}


def find_operations(graph: FileGraph) -> tuple[Operation, ...]:
    """Find the norms and dense layers of a graph whose parameters are stored, in graph order."""
    found = [*_fused(graph), *_decomposed(graph), *_dense(graph)]
    return tuple(sorted(found, key=lambda operation: operation.node))


def skip_casts(graph: FileGraph, value: str) -> str:
    """Return what a value was before Cast and Identity nodes."""
    producer = graph.producers.get(value)
    while producer is not None and graph.nodes[producer].operation in ("Cast", "Identity"):
        value = graph.nodes[producer].inputs[0]
        producer = graph.producers.get(value)
    return value


def _fused(graph: FileGraph) -> Iterator[Operation]:
    for number, node in enumerate(graph.nodes):
        signature = _FUSED.get(node.operation)
        if signature is None or not _is_vector(graph, number, signature.gain):
            continue
        bias = signature.bias
        yield Operation(
            kind=signature.kind,
            node=number,
            reads=tuple(node.inputs[slot] for slot in signature.reads),
            result=node.outputs[0],
            gain=(number, signature.gain),
            bias=(number, bias) if bias is not None and _is_vector(graph, number, bias) else None,
            embeds=node.operation == "EmbedLayerNormalization",
        )


def _decomposed(graph: FileGraph) -> Iterator[Operation]:
    for number, node in enumerate(graph.nodes):
        if node.operation != "Sqrt":
            continue
        squared = _squared(graph, node.inputs[0])
        if squared is None:
            continue
        for division in _divisions(graph, number, squared):
            yield from _scaled(graph, squared, graph.nodes[division].outputs[0])


def _squared(graph: FileGraph, variance: str) -> str | None:
    """Return y for ``variance`` = ReduceMean(y²) + ε, or None."""
    for added in _operands(graph, variance, "Add"):
        for square in _operands(graph, added, "ReduceMean")[:1]:
            (base, *_) = _operands(graph, square, "Pow") or _operands(graph, square, "Mul") or [""]
            if base:
                return base
    return None


def _divisions(graph: FileGraph, root: int, squared: str) -> Iterator[int]:
    """Yield the nodes that divide y by a root, or multiply it by the root's inverse."""
    for reader in _below(graph, graph.nodes[root].outputs[0]):
        node = graph.nodes[reader]
        if node.operation == "Div" and skip_casts(graph, node.inputs[0]) == squared:
            yield reader
        elif node.operation in ("Reciprocal", "Div"):
            for product in _below(graph, node.outputs[0]):
                factors = _operands(graph, graph.nodes[product].outputs[0], "Mul")
                if squared in factors:
                    yield product


def _scaled(graph: FileGraph, squared: str, normal: str) -> Iterator[Operation]:
    """Yield the norm whose normalised value is given, with its gain and bias, if it has them."""
    centered = _operands(graph, squared, "Sub")
    reads = (centered[0] if centered else squared,)
    for number in _below(graph, normal):
        gain = _vector_beside(graph, number, "Mul")
        if gain is None:
            continue
        node, bias = number, None
        if centered:
            for after in _below(graph, graph.nodes[number].outputs[0]):
                bias = bias or _vector_beside(graph, after, "Add")
            node = bias[0] if bias else number
        kind: Kind = "layernorm" if centered else "rmsnorm"
        yield Operation(kind, node, reads, graph.nodes[node].outputs[0], gain, bias)


def _dense(graph: FileGraph) -> Iterator[Operation]:
    for number, node in enumerate(graph.nodes):
        if node.operation not in ("MatMul", "Gemm") or len(node.inputs) < 2:
            continue
        weight, axis = (number, 1), 0 if node.attributes.get("transB") else 1
        producer = graph.producers.get(node.inputs[1])
        if producer is not None and graph.nodes[producer].operation == "Transpose":
            if len(graph.readers[node.inputs[1]]) > 1:
                continue  # an edit would reach another node
            weight, axis = (producer, 0), 1 - axis
        tensor = graph.tensor_of(graph.nodes[weight[0]].inputs[weight[1]])
        if tensor is None or len(tensor.info.shape) != 2:
            continue
        last, bias = number, None
        if node.operation == "Gemm":
            bias = (number, 2) if _is_vector(graph, number, 2) else None
        else:
            for after in _below(graph, node.outputs[0]):
                bias = bias or _vector_beside(graph, after, "Add") or _skip_bias(graph, after)
            last = bias[0] if bias else number
        result = graph.nodes[last].outputs[0]
        yield Operation("dense", last, (node.inputs[0],), result, weight, bias, axis)


def _operands(graph: FileGraph, value: str, operation: str) -> list[str]:
    """Return the inputs, before casts, of the node that gives a value, if it is such a node."""
    producer = graph.producers.get(skip_casts(graph, value))
    if producer is None or graph.nodes[producer].operation != operation:
        return []
    return [skip_casts(graph, name) for name in graph.nodes[producer].inputs]


def _below(graph: FileGraph, value: str) -> Iterator[int]:
    """Yield the nodes that read a value, through casts."""
    values = [value]
    while values:
        for number, _ in graph.readers.get(values.pop(), ()):
            if graph.nodes[number].operation in ("Cast", "Identity"):
                values.append(graph.nodes[number].outputs[0])
            else:
                yield number


def _vector_beside(graph: FileGraph, number: int, operation: str) -> Use | None:
    node = graph.nodes[number]
    if node.operation != operation:
        return None
    return next(
        ((number, s) for s in range(len(node.inputs)) if _is_vector(graph, number, s)), None
    )


def _skip_bias(graph: FileGraph, number: int) -> Use | None:
    """Return where a fused norm reads the bias of the dense layer before it."""
    slot = _SKIP_BIAS.get(graph.nodes[number].operation)
    return (number, slot) if slot is not None and _is_vector(graph, number, slot) else None


def _is_vector(graph: FileGraph, number: int, slot: int) -> bool:
    inputs = graph.nodes[number].inputs
    tensor = graph.tensor_of(inputs[slot]) if slot < len(inputs) else None
    return tensor is not None and len(tensor.info.shape) == 1
