"""What the exporter does to a traced program, without what it does again or in vain.

torch's exporter (torch.onnx, ``dynamo=True``) runs a program twice more once it is traced: to
decompose its operations into those of ONNX, and to insert the casts that PyTorch does by itself.
Together they take longer than the trace, and in most models find little to do. Then onnxscript's
optimizer tries each of its rules at each node of the graph.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

import onnx_ir as ir
import torch
from onnxscript.rewriter.pattern import MatchResult, SimplePatternMatcher
from torch._ops import OperatorBase, OpOverload
from torch.export import ExportedProgram
from torch.fx import Interpreter, Node
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

# Composite operations in models' code for which ONNX has functions, and others by another name.
_IN_ONNX = {
    "chunk", "contiguous", "dropout", "einsum", "flatten", "layer_norm", "linear", "matmul",
    "repeat_interleave.self_int", "reshape", "softmax", "sym_size", "to", "type_as", "unflatten",
    "where",
}  # fmt: skip
_COPIES = ("aten::to.", "aten::detach")
_MAKES_NEW = {"layer_norm", "linear", "matmul", "softmax"}  # of the composite ones
_RENAMED = {
    torch.ops.aten.__and__.Tensor: torch.ops.aten.bitwise_and.Tensor,
    torch.ops.aten.__or__.Tensor: torch.ops.aten.bitwise_or.Tensor,
    torch.ops.aten.min.other: torch.ops.aten.minimum.default,
    torch.ops.aten.max.other: torch.ops.aten.maximum.default,
}

_run_decompositions = ExportedProgram.run_decompositions
_run_node = Interpreter.run_node
_match = SimplePatternMatcher.match


@contextlib.contextmanager
def traced_once(longest: int) -> Iterator[list[int]]:
    """Have exports within the block run again only what is not known of a program.

    Yields a list that gets the lengths, of those up to the ``longest`` that are tried, for which a
    program was not traced.
    """
    known: dict[Node, tuple[Any, Any]] = {}
    untraced: list[int] = []

    def decompose_and_note(program: ExportedProgram, table: Mapping[Any, Any]) -> ExportedProgram:
        untraced.extend(_untraced(program, longest))
        made = decompose(program, table)
        nodes = (node for node in made.graph.nodes if "val" in node.meta)
        known.update((node, (node.args, node.kwargs)) for node in nodes)
        return made

    def run_node(interpreter: Interpreter, node: Node) -> Any:
        """Return what a node was traced to give, as long as it has the inputs that it had then."""
        if node.op == "call_function" and known.get(node) == (node.args, node.kwargs):
            return node.meta["val"]
        return _run_node(interpreter, node)

    with (
        mock.patch.object(ExportedProgram, "run_decompositions", decompose_and_note),
        mock.patch.object(Interpreter, "run_node", run_node),
        mock.patch.object(SimplePatternMatcher, "match", match),
    ):
        yield untraced


def _untraced(program: ExportedProgram, longest: int) -> Iterator[int]:
    """Yield the lengths around powers of two, and the longest, for which a program does not hold.

    A program asserts what its trace took for granted of the sizes, such as the turns of a loop over
    parts of a sequence. On the way to ONNX that is dropped. That sizes differ is asserted where one
    of 1 would be broadcast, which the graph does by itself.
    """
    asserts = program.graph.find_nodes(
        op="call_function",
        target=torch.ops.aten._assert_scalar.default,  # noqa: SLF001  # its name
    )
    values = [node.args[0].meta["val"] for node in asserts if isinstance(node.args[0], Node)]
    claims = [
        value.node.expr
        for value in values
        if isinstance(value, torch.SymBool) and not free_unbacked_symbols(value)
    ]
    claims = [claim for claim in claims if getattr(claim, "rel_op", "") != "!="]
    lengths = (2**power + more for power in range(1, longest.bit_length()) for more in (0, 1))
    for length in sorted({longest, *(one for one in lengths if one < longest)}):
        sizes = (dict.fromkeys(claim.free_symbols, length) for claim in claims)
        if not all(claim.subs(size) for claim, size in zip(claims, sizes, strict=True)):
            yield length


def match(
    matcher: SimplePatternMatcher, model: Any, graph: Any, node: ir.Node, **options: Any
) -> MatchResult:
    """Match a rule at a node, of the operation that the rule ends in: no other matches.

    A rule that ends in two nodes looks through the whole graph for the other before it looks at
    the one.
    """
    if not matcher.pattern.output_nodes[0].op.matches(node.op_type):
        return MatchResult().fail("the node is of another operation")
    return _match(matcher, model, graph, node, **options)


def decompose(program: ExportedProgram, decomp_table: Mapping[Any, Any]) -> ExportedProgram:
    """Decompose what ONNX has no function for, as ``run_decompositions`` does, if there is any."""
    nodes = [node for node in program.graph.nodes if isinstance(node.target, OperatorBase)]
    operations: dict[Node, OperatorBase] = {}
    for node in nodes:
        operations[node] = _without_effect(node, operations)
    if not all(_is_in_onnx(operation, decomp_table) for operation in operations.values()):
        return _run_decompositions(program, decomp_table)
    for node, operation in operations.items():
        node.target = _RENAMED.get(operation, operation)
        if node.target.name().startswith(_COPIES):  # a cast, or nothing
            source, made = node.args[0], node.meta["val"].dtype
            node.target = torch.ops.aten._to_copy.default  # noqa: SLF001  # its name
            node.args, node.kwargs = (source,), {"dtype": made}
            if source.meta["val"].dtype == made and "output" not in {n.op for n in node.users}:
                node.replace_all_uses_with(source)
                program.graph.erase_node(node)
    program.graph_module.recompile()
    return program


def _without_effect(node: Node, before: Mapping[Node, OperatorBase]) -> OperatorBase:
    """Return a node's operation, or that which does not change its input if nobody sees the change.

    ``before`` are the operations of the nodes before it.
    """
    operation = node.target
    assert isinstance(operation, OperatorBase)
    if not isinstance(operation, OpOverload) or not operation._schema.is_mutable:  # noqa: SLF001
        return operation
    changed, name = next(iter(node.args), None), operation.name().removeprefix("aten::")
    name, _, overload = name.partition(".")
    pure = getattr(getattr(torch.ops.aten, name.rstrip("_"), None), overload or "default", None)
    values = [n.meta.get("val") for n in node.all_input_nodes]
    dtypes = {v.dtype for v in (*values, node.meta.get("val")) if isinstance(v, torch.Tensor)}
    # Of a list of tensors, or under a name, it is no node.
    if pure is None or len(dtypes) > 1 or not isinstance(changed, Node):
        return operation
    return pure if len(changed.users) == 1 and _is_new(before.get(changed)) else operation


def _is_new(operation: object) -> bool:
    """Whether what an operation gives shares no memory with what it takes."""
    if not isinstance(operation, OpOverload):
        return False
    name, _, _ = operation.name().removeprefix("aten::").partition(".")
    shared = any(result.alias_info for result in operation._schema.returns)  # noqa: SLF001
    return not shared and (name in _MAKES_NEW or not operation._can_decompose())  # noqa: SLF001


def _is_in_onnx(operation: OperatorBase, table: Mapping[Any, Any]) -> bool:
    """Whether torch would leave an operation of a traced program as it is, given its table."""
    if not isinstance(operation, OpOverload) or operation._schema.is_mutable:  # noqa: SLF001
        return False
    whole = operation.name().removeprefix("aten::")
    name, _, _ = whole.partition(".")
    if operation in _RENAMED or name == "detach":
        return True
    known = name in _IN_ONNX or whole in _IN_ONNX
    return operation not in table and (known or not operation._can_decompose())  # noqa: SLF001
