"""Where the layers of a graph end, by its structure: for models whose layers end in a norm.

There each norm works on the sum of what the norm before it gave and what a block made of that
(post-norm), and the blocks alternate between attention and feed-forward.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence

from surgeon.errors import CheckpointError
from surgeon.families import Role, Stack
from surgeon.onnx.export import (
    Place,
    place_of,
    site_of,
)
from surgeon.onnx.file_graph import FileGraph
from surgeon.onnx.operations import Operation, skip_casts

_ATTENTION = (
    "Softmax", "Attention", "MultiHeadAttention", "GroupQueryAttention", "PackedAttention",
    "PackedMultiHeadAttention", "QAttention", "DecoderMaskedMultiHeadAttention",
)  # fmt: skip


def places_by_structure(graph: FileGraph, operations: Sequence[Operation]) -> tuple[Place, ...]:
    """Find the sites of a post-norm model by how its norms follow each other.

    Raises:
        CheckpointError: no norm, or no regular alternation of blocks, says where a layer ends.
    """
    norms = [operation for operation in operations if operation.kind != "dense"]
    chains = _chains(graph, norms)
    stacks: dict[Stack, list[list[tuple[Operation, Role]]]] = {}
    for chain in chains:
        steps = "".join(role[0] for _, role in chain if role != "embeddings")
        layer = re.fullmatch(r"(a+o)\1*", steps)
        if layer is None:
            raise CheckpointError(
                f"its norms follow blocks of attention (a) and others (o) as {steps}: that is no "
                "regular layer; name the norms that end each one with --sites-pattern REGEX"
            )
        stacks.setdefault("decoder" if "aa" in steps else "encoder", []).append(chain)
    if not chains or any(len(found) > 1 for found in stacks.values()):
        raise CheckpointError(
            f"{len(norms)} norms, in {len(chains)} chains of layers: which of them ends a layer "
            "cannot be told; name them with --sites-pattern REGEX"
        )
    return tuple(
        place
        for stack, (chain,) in stacks.items()
        for place in _numbered(graph, chain, stack if len(stacks) > 1 else "")
    )


def _chains(graph: FileGraph, norms: Iterable[Operation]) -> list[list[tuple[Operation, Role]]]:
    """Return each chain of norms that pass the stream on, with the role of each, root first."""
    by_result = {norm.result: norm for norm in norms}
    chains: dict[str, list[tuple[Operation, Role]]] = {}
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
    found, seen = set[str](), set[str]()
    waiting = [skip_casts(graph, value) for value in values]
    while waiting:
        part = waiting.pop()
        if part in seen:
            continue
        seen.add(part)
        producer = graph.producers.get(part)
        is_sum = producer is not None and graph.nodes[producer].operation == "Add"
        if is_sum and part not in norms:  # a decomposed norm ends in a sum, too
            assert producer is not None
            waiting.extend(skip_casts(graph, name) for name in graph.nodes[producer].inputs)
        elif graph.tensor_of(part) is None:
            found.add(part)
    return found


def _attends(graph: FileGraph, values: Iterable[str], norms: Mapping[str, Operation]) -> bool:
    """Tell whether attention is among what made the values since the last norms."""
    seen, values = set[str](), list(values)
    while values:
        value = values.pop()
        producer = graph.producers.get(value)
        if producer is None or value in seen or value in norms:
            continue
        seen.add(value)
        if graph.nodes[producer].operation in _ATTENTION:
            return True
        values.extend(graph.nodes[producer].inputs)
    return False


def _numbered(
    graph: FileGraph, chain: Sequence[tuple[Operation, Role]], stack: Stack
) -> Iterable[Place]:
    layer = 0
    for operation, role in chain:
        site = site_of(graph, operation, role, None if role == "embeddings" else layer)
        yield place_of(graph, dataclasses.replace(site, stack=stack), [operation])
        layer += role == "output"
