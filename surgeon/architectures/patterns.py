"""Sites of models that no row of the registry describes: proposed, and by a person's pattern."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from surgeon.architectures.sites import Kind, Site, gain_and_bias
from surgeon.errors import SelectionError

_NORM = re.compile(r"norm|(^|_)ln(_|\d|$)", re.IGNORECASE)
_SHOWN = 5


def propose_sites(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Propose patterns for ``sites_from_pattern``: norms that two or more layers have.

    A candidate is a module whose name says norm or ln, with a vector for a gain, of one length
    in every layer. Which of them is the last operation of a layer the names cannot tell.

    Args:
        shapes: the shape of every tensor.

    Returns:
        Regular expressions for module paths, those of the most layers first, else in the order
        of the file.
    """
    lengths: dict[str, list[tuple[int, ...]]] = {}
    for gain, pattern in norms_in_layers(shapes):
        lengths.setdefault(pattern, []).append(shapes[gain])
    repeated = [
        (pattern, len(found))
        for pattern, found in lengths.items()
        if len(found) > 1 and len(found[0]) == 1 and len(set(found)) == 1
    ]
    return [pattern for pattern, _ in sorted(repeated, key=lambda item: -item[1])]


def norms_in_layers(tensors: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the gain of each module in a layer whose name says norm or ln.

    With it comes the pattern of the modules that have its place in the other layers.
    """
    for module, leaves in _modules(tensors).items():
        gain, _ = gain_and_bias(leaves)
        path = module.split(".")
        layer = _layer_at(path)
        if gain is not None and layer is not None and _NORM.search(path[-1]):
            parts = [r"\d+" if i == layer else re.escape(part) for i, part in enumerate(path)]
            yield gain, r"\.".join(parts)


def sites_from_pattern(pattern: str, shapes: Mapping[str, tuple[int, ...]]) -> tuple[Site, ...]:
    """Make output sites of the modules whose whole path matches a regular expression.

    A module with a vector for a weight is a norm, one with a matrix a dense layer. A dense layer
    stores (outputs, inputs), unless its bias fits the other axis alone. The layer is the first
    integer in the path.

    Args:
        pattern: such as one that ``propose_sites`` gives.
        shapes: the shape of every tensor.

    Raises:
        SelectionError: the pattern is no regular expression or matches no module, or a module
            that it matches is neither a norm nor a dense layer.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise SelectionError(f"pattern {pattern!r}: no regular expression ({error})") from error
    modules = {
        module: leaves for module, leaves in _modules(shapes).items() if compiled.fullmatch(module)
    }
    if not modules:
        candidates = " or ".join(propose_sites(shapes)[:_SHOWN]) or "nothing by its names"
        raise SelectionError(f"pattern {pattern!r}: matches no module; likely is {candidates}")
    sites = [_site(pattern, module, leaves, shapes) for module, leaves in modules.items()]
    return tuple(sorted(sites, key=lambda site: site.layer or 0))


def _modules(tensors: Iterable[str]) -> dict[str, dict[str, str]]:
    modules: dict[str, dict[str, str]] = {}
    for name in tensors:
        module, _, leaf = name.rpartition(".")
        modules.setdefault(module, {})[leaf] = name
    return modules


def _layer_at(path: list[str]) -> int | None:
    return next((i for i, part in enumerate(path) if part.isascii() and part.isdigit()), None)


def _site(
    pattern: str, module: str, leaves: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]
) -> Site:
    gain, bias = gain_and_bias(leaves)
    shape = shapes[gain] if gain is not None else ()
    if gain is None or len(shape) not in (1, 2):
        raise SelectionError(
            f"pattern {pattern!r}: {module} has "
            f"{f'a weight of shape {list(shape)}' if gain else 'no weight'}; "
            "a norm has a vector and a dense layer a matrix"
        )
    kind: Kind = "dense" if len(shape) == 2 else "layernorm" if bias is not None else "rmsnorm"
    axis = int(kind == "dense" and bias is not None and shapes[bias] == shape[1:] != shape[:1])
    path = module.split(".")
    at = _layer_at(path)
    return Site("output", kind, None if at is None else int(path[at]), gain, bias, axis)
