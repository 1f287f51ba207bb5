"""The sites of an ONNX graph: which of its operations ends a layer, found in one of three ways.

- By name: exporters keep the names of a family's modules in initializers, nodes or metadata.
- By a pattern that the user gives.
- By structure, for models whose layers end in a norm (post-norm): there each norm works on the sum
  of what the norm before it gave and what a block made of that, and the blocks alternate between
  attention and feed-forward.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from surgeon.errors import CheckpointError, SelectionError
from surgeon.families import Family, Role, Site, Stack
from surgeon.families.sites import is_expert
from surgeon.harmless import whole_match
from surgeon.onnx.file_graph import FileGraph, Node, Use
from surgeon.onnx_files.operations import Operation

_SHOWN = 4
_CALL = re.compile(r"_\d+$")
_LAYER = re.compile(r"(?<!\d)(\d{1,5})(?!\d)")
_ATTENTION = (
    "Softmax", "Attention", "MultiHeadAttention", "GroupQueryAttention", "PackedAttention",
    "PackedMultiHeadAttention", "QAttention", "DecoderMaskedMultiHeadAttention",
)  # fmt: skip


@dataclass(frozen=True)
class GraphSite:
    """A site, and the operations that read its tensors: several where layers share them."""

    site: Site
    operations: tuple[Operation, ...]


def sites_by_name(
    graph: FileGraph, operations: Sequence[Operation], family: Family
) -> tuple[GraphSite, ...]:
    """Find a family's sites by the names of initializers, nodes and modules.

    Raises:
        CheckpointError: the names are not those of the family, or a layer is missing.
    """
    named = _named(graph, operations, family) or _named(graph, operations, family, "encoder.")
    leaves = {
        f"{path}.{leaf}": path
        for path, found in named.items()
        for leaf, use in (("weight", found[0].gain), ("bias", found[0].bias))
        if use is not None
    }
    sites = [_named_site(graph, s, named[leaves[s.gain]]) for s in family.sites(leaves.keys())]
    if not any(found.site.role == "embeddings" for found in sites):
        # onnxruntime's fusion of the embeddings with their norm has a name of its own.
        fused = [
            o for o in operations if graph.nodes[o.node].operation == "EmbedLayerNormalization"
        ]
        sites += [GraphSite(_site(graph, o, "embeddings", None), (o,)) for o in fused]
    return tuple(sites)


def sites_by_pattern(
    graph: FileGraph, operations: Sequence[Operation], pattern: str
) -> tuple[GraphSite, ...]:
    """Make output sites of the operations with a name that a regular expression matches whole.

    The names are those of the nodes, the initializers and the modules. The layer is the first
    integer in the name, or else counts through; experts end one together.

    Raises:
        SelectionError: the pattern is not a regular expression, or matches none.
    """
    matches = whole_match(pattern)
    named = ((o, next(filter(matches, _names(graph, o)), None)) for o in operations)
    found = [(operation, name) for operation, name in named if name is not None]
    if not found:
        norms = [operation for operation in operations if operation.kind != "dense"] or operations
        names = list(dict.fromkeys(_names(graph, norm)[0] for norm in norms))
        shown = " or ".join(map(repr, names[:_SHOWN])) or "no norm"
        raise SelectionError(
            f"`sites_pattern` {pattern!r}: matches no node's whole name; there is {shown}"
        )
    numbers = [int(m.group()) if (m := _LAYER.search(name)) else None for _, name in found]
    sites = [
        GraphSite(_site(graph, operation, "output", layer), (operation,))
        for layer, (operation, _) in zip(numbers, found, strict=True)
    ]
    ends = [one.site.layer for one in sites if not one.site.expert]
    ends += {one.site.layer for one in sites if one.site.expert}
    if len(set(ends)) < len(ends) or None in ends:
        return tuple(
            dataclasses.replace(one, site=dataclasses.replace(one.site, layer=layer))
            for layer, one in enumerate(sites)
        )
    return tuple(sorted(sites, key=lambda one: one.site.layer or 0))


def sites_by_structure(graph: FileGraph, operations: Sequence[Operation]) -> tuple[GraphSite, ...]:
    """Find the sites of a post-norm model by how its norms follow each other.

    Raises:
        CheckpointError: no norm, or no regular alternation of blocks, says where a layer ends.
    """
    norms = [operation for operation in operations if operation.kind != "dense"]
    if not norms:
        raise CheckpointError(
            "it has no norm whose gain is stored in it; name the dense layers that end each layer "
            "with `sites_pattern` REGEX"
        )
    chains = _chains(graph, norms)
    stacks: dict[Stack, list[_Chain]] = {}
    for chain in chains:
        steps = "".join(role[0] for _, role in chain if role != "embeddings")
        layer = re.fullmatch(r"(a+o)\1*", steps)
        if layer is None:
            raise CheckpointError(
                f"its norms follow blocks of attention (a) and others (o) as {steps}: that is not "
                "a regular layer; name the norms that end each one with `sites_pattern` REGEX"
            )
        stacks.setdefault("decoder" if "aa" in steps else "encoder", []).append(chain)
    if not chains or any(len(found) > 1 for found in stacks.values()):
        raise CheckpointError(
            f"{len(norms)} norms, in {len(chains)} chains of layers, do not say which of them ends "
            "a layer (in a pre-norm model a dense layer does); name those that do with "
            "`sites_pattern` REGEX"
        )
    return tuple(
        found
        for stack, (chain,) in stacks.items()
        for found in _numbered(graph, chain, stack if len(stacks) > 1 else "")
    )


def _named(
    graph: FileGraph, operations: Sequence[Operation], family: Family, inside: str = ""
) -> dict[str, list[Operation]]:
    """Return the operations by their module paths, as the family has them.

    ``inside`` is the module that was exported alone: Optimum's ``encoder_model.onnx`` has names
    from below the encoder.
    """
    named: dict[str, list[Operation]] = {}
    for operation in operations:
        paths = (f"{inside}{path}" for path in _paths(graph, operation))
        path = next((path for path in paths if _fits(family, path, operation)), None)
        if path is not None:
            named.setdefault(path, []).append(operation)
    return named


def _named_site(graph: FileGraph, site: Site, operations: Sequence[Operation]) -> GraphSite:
    """Give a family's site the tensors that its operations read."""
    found = {(_tensor(graph, o.gain), _tensor(graph, o.bias), o.axis) for o in operations}
    if len(found) > 1:
        raise CheckpointError(
            f"{len(operations)} norms are named {site.gain.rpartition('.')[0]} and have different "
            "weights; name those that end a layer with `sites_pattern` REGEX"
        )
    own = _site(graph, operations[0], site.role, site.layer, site.stack)
    # The offset of a family that multiplies by more than it stores is folded in by the exporter.
    return GraphSite(dataclasses.replace(own, expert=site.expert), tuple(operations))


def _site(
    graph: FileGraph, operation: Operation, role: Role, layer: int | None, stack: Stack = ""
) -> Site:
    gain, bias = _tensor(graph, operation.gain), _tensor(graph, operation.bias)
    assert gain is not None
    axis, expert = operation.axis, is_expert(gain)
    return Site(role, operation.kind, layer, gain, bias, axis, stack, expert=expert)


def _tensor(graph: FileGraph, use: Use | None) -> str | None:
    if use is None:
        return None
    stored = graph.tensor_of(_value(graph, use))
    assert stored is not None
    if stored.obstacle:
        raise CheckpointError(stored.obstacle)
    return stored.info.name


def _value(graph: FileGraph, use: Use) -> str:
    number, slot = use
    return graph.nodes[number].inputs[slot]


def _names(graph: FileGraph, operation: Operation) -> list[str]:
    inputs = [_value(graph, use) for use in (operation.gain, operation.bias) if use]
    return [*inputs, *_paths(graph, operation), *filter(None, [graph.nodes[operation.node].name])]


def _paths(graph: FileGraph, operation: Operation) -> list[str]:
    """Return the module paths that names give an operation, the most certain first."""
    node = graph.nodes[operation.node]
    gain, bias = (_own_name(graph, use) for use in (operation.gain, operation.bias))
    slashed = [name for name in (node.name, operation.result) if name.startswith("/")]
    modules = [".".join(name.strip("/").split("/")[:-1]) for name in slashed]
    paths = (
        gain.rpartition(".")[0],
        node.scope,
        *modules,
        # torch numbers the calls of a module that several layers share.
        *(_CALL.sub("", module) for module in modules),
        bias.rpartition(".")[0],
    )
    return [path for path in paths if path]


def _own_name(graph: FileGraph, use: Use | None) -> str:
    """Return the name of what is read; "" where others read it too: exporters merge equal ones."""
    name = _value(graph, use) if use else ""
    return name if name and len(graph.readers[name]) == 1 else ""


def _fits(family: Family, path: str, operation: Operation) -> bool:
    return any(
        template.prefixes([f"{path}.weight"])
        for template in family.templates
        if (template.kind == "dense") == (operation.kind == "dense")
    )


_Chain: TypeAlias = Sequence[tuple[Operation, Role]]


def _chains(graph: FileGraph, norms: Iterable[Operation]) -> list[_Chain]:
    """Return each chain of norms that pass the stream on, with the role of each, root first."""
    by_result = {norm.result: norm for norm in norms}
    chains: dict[str, _Chain] = {}
    for norm in by_result.values():
        summands = _summands(graph, norm.reads, by_result)
        before = [part for part in summands if part in chains]
        attends = _attends(graph, summands.difference(before), by_result)
        if len(before) != 1:
            chains[norm.result] = [(norm, "attention" if attends else "embeddings")]
            continue
        chain = chains.pop(before[0])
        chains[norm.result] = [*chain, (norm, "attention" if attends else "output")]
    return [chain for chain in chains.values() if len(chain) > 1]


def _summands(graph: FileGraph, values: Iterable[str], norms: Mapping[str, Operation]) -> set[str]:
    """Return what the sum of some values is the sum of, but for stored biases."""

    def is_sum(value: str, node: Node) -> bool:
        # A decomposed norm ends in a sum, too.
        return node.operation in ("Add", "Cast", "Identity") and value not in norms

    return {
        value
        for value, node in _upstream(graph, values, is_sum)
        if not (node and is_sum(value, node)) and graph.tensor_of(value) is None
    }


def _attends(graph: FileGraph, values: Iterable[str], norms: Mapping[str, Operation]) -> bool:
    """Tell whether attention is among what made the values since the last norms."""
    made = _upstream(graph, values, lambda value, _: value not in norms)
    return any(n is not None and v not in norms and n.operation in _ATTENTION for v, n in made)


def _upstream(
    graph: FileGraph, values: Iterable[str], passes: Callable[[str, Node], bool]
) -> Iterator[tuple[str, Node | None]]:
    """Yield values and what they are made of, each with its node; seen through what passes."""
    seen, waiting = set[str](), list(values)
    while waiting:
        value = waiting.pop()
        if value in seen:
            continue
        seen.add(value)
        node = graph.producers.get(value)
        yield value, node
        if node is not None and passes(value, node):
            waiting.extend(node.inputs)


def _numbered(graph: FileGraph, chain: _Chain, stack: Stack) -> Iterator[GraphSite]:
    layer = 0
    for operation, role in chain:
        at = None if role == "embeddings" else layer
        yield GraphSite(_site(graph, operation, role, at, stack), (operation,))
        layer += role == "output"
