"""Which of a graph's norms and dense layers is the last operation of a layer.

Told by names where the exporter kept them and the family is known: of the initializers, and of the
modules that torch's exporters note. Or by a person's pattern; else ``structure`` may tell.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass

from surgeon.architectures import Family, Role, Site
from surgeon.architectures.patterns import whole_match
from surgeon.architectures.sites import is_expert
from surgeon.errors import CheckpointError, SelectionError
from surgeon.onnx_model.file_graph import FileGraph
from surgeon.onnx_model.operations import Operation, Use

_SHOWN = 4
_CALL = re.compile(r"_\d+$")
_LAYER = re.compile(r"(?<!\d)(\d{1,5})(?!\d)")


@dataclass(frozen=True)
class Place:
    """A site, and the operations that read its tensors: several where layers share them."""

    site: Site
    operations: tuple[Operation, ...]


def places_by_name(
    graph: FileGraph, operations: Sequence[Operation], family: Family
) -> tuple[Place, ...]:
    """Find a family's sites by the names of initializers, nodes and modules.

    Raises:
        CheckpointError: the names are not those of the family, or a layer is missing.
    """
    named: dict[str, list[Operation]] = {}
    for operation in operations:
        path = next((p for p in paths_of(graph, operation) if _fits(family, p, operation)), None)
        if path is not None:
            named.setdefault(path, []).append(operation)
    leaves = {
        f"{path}.{leaf}": path
        for path, found in named.items()
        for leaf, use in (("weight", found[0].gain), ("bias", found[0].bias))
        if use is not None
    }
    places = [
        place_of(graph, site, named[leaves[site.gain]]) for site in family.sites(leaves.keys())
    ]
    if not any(place.site.role == "embeddings" for place in places):
        # onnxruntime's fusion of the embeddings with their norm has a name of its own.
        places += [
            Place(site_of(graph, operation, "embeddings", None), (operation,))
            for operation in operations
            if operation.embeds
        ]
    return tuple(places)


def places_by_pattern(
    graph: FileGraph, operations: Sequence[Operation], pattern: str
) -> tuple[Place, ...]:
    """Make output sites of the operations with a name that a regular expression matches whole.

    The names are those of the nodes, the initializers and the modules. The layer is the first
    integer in the name, or else counts through; experts end one together.

    Raises:
        SelectionError: the pattern is no regular expression, or matches none.
    """
    matches = whole_match(pattern)
    named = ((o, next(filter(matches, _names(graph, o)), None)) for o in operations)
    found = [(operation, name) for operation, name in named if name is not None]
    if not found:
        norms = [operation for operation in operations if operation.kind != "dense"] or operations
        shown = " or ".join(repr(_names(graph, norm)[0]) for norm in norms[1 : 1 + _SHOWN])
        raise SelectionError(f"pattern {pattern!r}: matches no node; there is {shown or 'no norm'}")
    numbers = [int(m.group()) if (m := _LAYER.search(name)) else None for _, name in found]
    sites = [
        site_of(graph, operation, "output", layer)
        for layer, (operation, _) in zip(numbers, found, strict=True)
    ]
    ends = [site.layer for site in sites if not site.expert]
    ends += {site.layer for site in sites if site.expert}
    if len(set(ends)) < len(ends) or None in ends:
        sites = [dataclasses.replace(site, layer=layer) for layer, site in enumerate(sites)]
    places = [
        place_of(graph, site, [operation])
        for site, (operation, _) in zip(sites, found, strict=True)
    ]
    return tuple(sorted(places, key=lambda place: place.site.layer or 0))


def paths_of(graph: FileGraph, operation: Operation) -> list[str]:
    """Return the module paths that names give an operation, the most certain first.

    The name of a tensor that others read too says nothing: exporters merge equal ones.
    """
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
    if use is None:
        return ""
    name = graph.nodes[use[0]].inputs[use[1]]
    return name if len(graph.readers[name]) == 1 else ""


def _names(graph: FileGraph, operation: Operation) -> list[str]:
    node = graph.nodes[operation.node]
    inputs = [graph.nodes[use[0]].inputs[use[1]] for use in (operation.gain, operation.bias) if use]
    return [*inputs, *paths_of(graph, operation), *filter(None, [node.name])]


def _fits(family: Family, path: str, operation: Operation) -> bool:
    return any(
        template.prefixes([f"{path}.weight"])
        for template in family.templates
        if (template.kind == "dense") == (operation.kind == "dense")
    )


def place_of(graph: FileGraph, site: Site, operations: Sequence[Operation]) -> Place:
    """Return a site with the tensors that its operations read."""
    first = operations[0]
    found = {(_tensor(graph, o.gain), _tensor(graph, o.bias), o.axis) for o in operations}
    if len(found) > 1:
        raise CheckpointError(
            f"{len(operations)} norms are named {site.gain.rpartition('.')[0]} and have different "
            "weights; name those that end a layer with --sites-pattern REGEX"
        )
    ((gain, bias, axis),) = found
    assert gain is not None
    # What a graph multiplies by is what it stores: an offset of the family is folded in.
    own = dataclasses.replace(
        site, kind=first.kind, gain=gain, bias=bias, axis=axis, gain_offset=0.0
    )
    return Place(own, tuple(operations))


def site_of(graph: FileGraph, operation: Operation, role: Role, layer: int | None) -> Site:
    """Return the site that an operation is, with the tensors that it reads."""
    gain = _tensor(graph, operation.gain)
    assert gain is not None
    bias, expert = _tensor(graph, operation.bias), operation.kind == "dense" and is_expert(gain)
    return Site(role, operation.kind, layer, gain, bias, operation.axis, expert=expert)


def _tensor(graph: FileGraph, use: Use | None) -> str | None:
    if use is None:
        return None
    stored = graph.tensor_of(graph.nodes[use[0]].inputs[use[1]])
    assert stored is not None
    if stored.obstacle:
        raise CheckpointError(stored.obstacle)
    return stored.info.name
