"""The modules of a checkpoint, by the names of its tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from surgeon.architectures.sites import gain_and_bias

_NORM = re.compile(r"norm|(^|_)ln(_|\d|$)", re.IGNORECASE)
_FUSED = re.compile(r"(experts|moe).*(down|out|w2)")
_OF_EXPERTS = 3  # axes: experts, outputs, inputs


def norms_in_layers(tensors: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the gain of each module in a layer whose name says norm or ln.

    With it comes the pattern of the modules that have its place in the other layers.
    """
    for module, leaves in modules_of(tensors).items():
        gain, _ = gain_and_bias(leaves)
        path = module.split(".")
        if gain is not None and layer_at(path) is not None and _NORM.search(path[-1]):
            yield gain, pattern_of(module)


def norms_outside_layers(tensors: Iterable[str]) -> Iterator[str]:
    """Yield the gain of each module outside the layers whose name says norm or ln."""
    for module, leaves in modules_of(tensors).items():
        gain, _ = gain_and_bias(leaves)
        path = module.split(".")
        if gain is not None and layer_at(path) is None and _NORM.search(path[-1]):
            yield gain


def dense_in_layers(
    shapes: Mapping[str, tuple[int, ...]],
) -> Iterator[tuple[str, str | None, str]]:
    """Yield the weight and the bias of each module in a layer that has a matrix for a weight.

    With them comes the pattern of the modules that have its place in the other layers.
    """
    for module, leaves in modules_of(shapes).items():
        weight, bias = gain_and_bias(leaves)
        if (
            weight is not None
            and len(shapes[weight]) == 2
            and layer_at(module.split(".")) is not None
        ):
            yield weight, bias, pattern_of(module)


def fused_experts(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Return a tensor that holds the weights of all experts of a layer, if there is one."""
    cubes = (name for name, shape in shapes.items() if len(shape) == _OF_EXPERTS)
    return next((name for name in cubes if _FUSED.search(name)), None)


def pattern_of(module: str) -> str:
    """Return the pattern of the modules that have a module's place in other layers and experts."""
    path = module.split(".")
    numbers = (layer_at(path), *(i + 1 for i, part in enumerate(path) if part == "experts"))
    parts = (
        r"\d+" if i in numbers and part.isdecimal() else re.escape(part)
        for i, part in enumerate(path)
    )
    return r"\.".join(parts)


def module_of(tensor: str) -> str:
    """Return the path of the module that a tensor is in."""
    return tensor.rpartition(".")[0]


def modules_of(tensors: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return the tensor names of each module, by their last component."""
    modules: dict[str, dict[str, str]] = {}
    for name in tensors:
        module, _, leaf = name.rpartition(".")
        modules.setdefault(module, {})[leaf] = name
    return modules


def layer_at(path: list[str]) -> int | None:
    """Return which component of a path is the first number, which is that of a layer."""
    return next((i for i, part in enumerate(path) if part.isascii() and part.isdigit()), None)
