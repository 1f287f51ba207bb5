"""The norms and dense layers of an ONNX graph, in whatever form an exporter or a fusion left them.

A norm is one node (LayerNormalization, RMSNormalization, onnxruntime's fused ones), or it is
decomposed, as exporters below opset 17 write it: the scale is found above the square root of a
mean of squares, the gain and the bias below the division.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from surgeon.families import Kind
from surgeon.onnx.file_graph import SAME, FileGraph, Node, Use


@dataclass(frozen=True)
class Operation:
    """A norm or a dense layer.

    ``reads`` are the values that it works on, ``result`` what it gives. ``gain`` and ``bias`` are
    where its parameters are read; for a dense layer the gain is the weight, of which the dimension
    indexes ``axis``.
    """

    kind: Kind
    node: int
    reads: tuple[str, ...]
    result: str
    gain: Use
    bias: Use | None
    axis: int = 0


class _Fused(NamedTuple):
    """The signature of a norm that is one node: the numbers of its inputs.

    ``before`` is the bias of the dense layer in front of it.
    """

    kind: Kind
    reads: tuple[int, ...]
    gain: int
    bias: int | None
    before: int | None = None


# The ONNX operators and onnxruntime's contrib operators (docs/ContribOperators.md).
_FUSED = {
    "LayerNormalization": _Fused("layernorm", (0,), 1, 2),
    "SimplifiedLayerNormalization": _Fused("rmsnorm", (0,), 1, None),
    "RMSNormalization": _Fused("rmsnorm", (0,), 1, None),
    "SkipLayerNormalization": _Fused("layernorm", (0, 1), 2, 3, before=4),
    "SkipSimplifiedLayerNormalization": _Fused("rmsnorm", (0, 1), 2, None, before=3),
    "EmbedLayerNormalization": _Fused("layernorm", (), 5, 6),
}

NORMS = frozenset((*_FUSED, "ReduceMean"))
"""Operations of which every norm has one, whole or decomposed."""


def find_operations(graph: FileGraph) -> tuple[Operation, ...]:
    """Find the norms and dense layers of a graph whose parameters are stored, in graph order."""
    found = [*_fused_norms(graph), *_decomposed_norms(graph), *_dense_layers(graph)]
    return tuple(sorted(found, key=lambda operation: operation.node))


def _fused_norms(graph: FileGraph) -> Iterator[Operation]:
    for node in graph.nodes:
        signature = _FUSED.get(node.operation)
        gain = _vector_at(graph, node, signature.gain) if signature else None
        if signature is None or gain is None:
            continue
        yield Operation(
            kind=signature.kind,
            node=node.number,
            reads=tuple(node.inputs[slot] for slot in signature.reads),
            result=node.result,
            gain=gain,
            bias=_vector_at(graph, node, signature.bias),
        )


def _decomposed_norms(graph: FileGraph) -> Iterator[Operation]:
    for node in graph.nodes:
        if node.operation == "Sqrt" and (squared := _squared(graph, node.first)):
            for normal in _normalized(graph, node, squared):
                yield from _scaled(graph, squared, normal)


def _squared(graph: FileGraph, variance: str) -> str:
    """Return y for ``variance`` = ReduceMean(y²) + ε, or "" if it is something else."""
    for added in _operands(graph, variance, "Add"):
        for square in _operands(graph, added, "ReduceMean")[:1]:
            for base in (_operands(graph, square, "Pow") or _operands(graph, square, "Mul"))[:1]:
                return base
    return ""


def _normalized(graph: FileGraph, root: Node, squared: str) -> Iterator[str]:
    """Yield what is y divided by a root, or multiplied by the root's inverse."""
    for node in _below(graph, root.result):
        if node.operation == "Div" and graph.origin(node.first) == squared:
            yield node.result
        elif node.operation in ("Reciprocal", "Div"):
            for product in _below(graph, node.result):
                if squared in _operands(graph, product.result, "Mul"):
                    yield product.result


def _scaled(graph: FileGraph, squared: str, normal: str) -> Iterator[Operation]:
    """Yield the norm whose normalised value is given, with its gain and bias, if it has them."""
    centered = _operands(graph, squared, "Sub")
    kind: Kind = "layernorm" if centered else "rmsnorm"
    for node in _below(graph, normal):
        gain = _vector_beside(graph, node, "Mul")
        if gain is None:
            continue
        bias = None
        for after in _below(graph, node.result) if centered else ():
            bias = bias or _vector_beside(graph, after, "Add")
        last = graph.nodes[bias[0]] if bias else node
        reads = (centered[0] if centered else squared,)
        yield Operation(kind, last.number, reads, last.result, gain, bias)


def _dense_layers(graph: FileGraph) -> Iterator[Operation]:
    for node in graph.nodes:
        if node.operation not in ("MatMul", "Gemm") or len(node.inputs) < 2:
            continue
        source, weight = node.inputs[1], (node.number, 1)
        axis = 0 if node.attributes.get("transB") else 1
        producer = graph.producers.get(source)
        if producer is not None and producer.operation == "Transpose":
            if len(graph.readers[source]) > 1:
                continue  # an edit would reach another node
            source, weight, axis = producer.first, (producer.number, 0), 1 - axis
        tensor = graph.tensor_of(source)
        if tensor is None or len(tensor.info.shape) != 2:
            continue
        last, bias = node, None
        if node.operation == "Gemm":
            bias = _vector_at(graph, node, 2)
        else:
            for after in _below(graph, node.result):
                fused = _FUSED.get(after.operation)
                bias = bias or _vector_beside(graph, after, "Add")
                bias = bias or _vector_at(graph, after, fused.before if fused else None)
            last = graph.nodes[bias[0]] if bias else node
        yield Operation("dense", last.number, node.inputs[:1], last.result, weight, bias, axis)


def _operands(graph: FileGraph, value: str, operation: str) -> list[str]:
    """Return the inputs, before casts, of the node that gives a value, if it is such a node."""
    node = graph.producers.get(graph.origin(value))
    if node is None or node.operation != operation:
        return []
    return [graph.origin(name) for name in node.inputs]


def _below(graph: FileGraph, value: str) -> Iterator[Node]:
    """Yield the nodes that read a value, through casts."""
    readers = (number for name in graph.aliases(value) for number, _ in graph.readers.get(name, ()))
    for node in (graph.nodes[number] for number in dict.fromkeys(readers)):
        if node.operation not in SAME:
            yield node


def _vector_beside(graph: FileGraph, node: Node, operation: str) -> Use | None:
    """Return where a node of an operation reads a stored vector."""
    slots = range(len(node.inputs)) if node.operation == operation else ()
    found = (_vector_at(graph, node, slot) for slot in slots)
    return next((use for use in found if use is not None), None)


def _vector_at(graph: FileGraph, node: Node, slot: int | None) -> Use | None:
    """Return an input of a node, if that is a stored vector."""
    if slot is None or slot >= len(node.inputs):
        return None
    tensor = graph.tensor_of(node.inputs[slot])
    return (node.number, slot) if tensor is not None and len(tensor.info.shape) == 1 else None
