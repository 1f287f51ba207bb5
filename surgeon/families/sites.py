"""A site: one place where a layer writes dimension d of the residual stream.

The default site is the last operation of the layer (Kovaleva et al. 2021, section 3): the output
LayerNorm in post-norm models, the output dense layer in pre-norm models such as GPT-2.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

from surgeon.errors import CheckpointError

Role: TypeAlias = Literal["output", "attention", "embeddings", "final"]
Kind: TypeAlias = Literal["layernorm", "rmsnorm", "dense"]
Stack: TypeAlias = Literal["", "encoder", "decoder", "text", "vision"]

ROLES: tuple[Role, ...] = get_args(Role)
STACKS: tuple[Stack, ...] = get_args(Stack)
_TOWERS: tuple[Stack, ...] = ("text", "vision")  # side by side, joined by their outputs alone

# GPTQ and AWQ; compressed-tensors; HQQ; the MXFP4 of gpt-oss.
_PACKED_NAMES = ("qweight", "weight_packed", "W_q", "blocks")
# TensorFlow says gamma and beta; a tensor of all experts of a layer is named like a module.
GAIN_NAMES = ("weight", "gamma", *_PACKED_NAMES, "")
BIAS_NAMES = ("bias", "beta")
_EXPERT = re.compile(r"\.(experts|block_sparse_moe|shared_(experts?|mlp))\.")
_LANGUAGE_MODEL = re.compile(r"((language|text)_model|thinker)\.")
# A name may have thousands of digits, which int refuses.
_LAYER = re.compile(r"((?:.*?\.)?[0-9]{1,9})(?:\.(.*))?")


@dataclass(frozen=True)
class Site:
    """One place where a layer writes dimension d.

    ``gain`` and ``bias`` are tensor names. The dimension indexes ``axis`` of the gain and the
    last axis of the bias. For ``kind="dense"`` the gain is the weight matrix, so that a
    dimension is a slice of it. ``layer`` counts within ``stack``, which is empty in a model of
    one stack. The model multiplies by ``gain + gain_offset``. ``expert`` marks the matrix of an
    expert, shared ones included; those of a layer end it together. Where one tensor holds the
    matrices of all, its first axis counts them, and so does that of the bias.
    """

    role: Role
    kind: Kind
    layer: int | None
    gain: str
    bias: str | None
    axis: int
    stack: Stack = ""
    gain_offset: float = 0.0
    expert: bool = False


def gain_and_bias(leaves: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Return the tensor names of a module's gain and bias, of all its names by last component."""
    gain = next((leaves[leaf] for leaf in GAIN_NAMES if leaf in leaves), None)
    bias = next((leaves[leaf] for leaf in BIAS_NAMES if leaf in leaves), None)
    return gain, bias


def canonical_name(tensor: str) -> str:
    """Return a tensor name with the modern spelling of a LayerNorm's gain and bias."""
    module, _, leaf = tensor.rpartition(".")
    modern = {"gamma": "weight", "beta": "bias"}.get(leaf, leaf)
    return f"{module}.{modern}" if module else modern


def split_layer(path: str) -> tuple[str, str]:
    """Split a path after its first number, the layer's; ("", path) if it has none."""
    match = _LAYER.fullmatch(path)
    return (match[1], match[2] or "") if match else ("", path)


def is_expert(tensor: str) -> bool:
    """Whether a tensor is an expert's by its name, a shared expert's included."""
    return _EXPERT.search(tensor) is not None


def of_language_model(names: Iterable[str]) -> list[str]:
    """Keep the names of a multimodal model's language model; all, where none says it is one.

    Its other parts may have layers of the same names.
    """
    every = list(names)
    return [name for name in every if _LANGUAGE_MODEL.search(name)] or every


def in_order(sites: Iterable[Site]) -> tuple[Site, ...]:
    """Sort sites by role, then stack, then layer; those of one layer keep their order."""
    return tuple(
        sorted(sites, key=lambda s: (ROLES.index(s.role), STACKS.index(s.stack), s.layer or 0))
    )


def by_layer(sites: Iterable[Site]) -> list[tuple[Site, ...]]:
    """Group output sites by the layer that they end; experts end one together."""
    layers: dict[object, list[Site]] = {}
    for site in sites:
        if site.role == "output":
            key = site.expert and split_layer(site.gain)[0]
            layers.setdefault(key or site, []).append(site)
    return [tuple(layer) for layer in layers.values()]


def one_stream(sites: tuple[Site, ...], shapes: Mapping[str, tuple[int, ...]]) -> tuple[Site, ...]:
    """Check the shapes of sites and keep those that share the dimensions of the first one.

    CLIP's vision tower has its own residual stream, in which dimension d means something else
    whatever the width, so it is left out. So are a stack and an embeddings norm of another width
    than the first stack's (ELECTRA, ALBERT).

    Args:
        sites: the sites of a checkpoint, output sites first.
        shapes: the shape of every tensor.

    Raises:
        CheckpointError: a tensor's shape is not that of a vector or weight over the dimensions, or
            all of them are packed.
    """
    outputs = [site for site in sites if site.role == "output"]
    plain_first = sorted((*outputs, *sites), key=lambda site: site.expert)
    widths = {
        stack: stream_width((s for s in plain_first if s.stack == stack), shapes)
        for stack in dict.fromkeys(site.stack for site in outputs)
    }
    first, hidden = next(iter(widths.items()))
    kept = []
    for site in sites:
        apart = site.stack != first and site.stack in _TOWERS
        if apart or widths.get(site.stack) != hidden:
            continue
        shape, axis = shapes[site.gain], site.axis
        # transformers has Qwen3-VL-MoE's joined experts the other way round than the Hub.
        if len(shape) > axis > 0 and shape[-axis] == hidden != shape[axis]:
            axis = len(shape) - axis
        found = replace(site, axis=axis)
        width = _width(found, shapes)
        if width in (hidden, None):
            kept.append(found)
        elif site.role != "embeddings":
            raise _wrong_shape(site, shapes, f"{hidden} dimensions")
    return tuple(kept)


def stream_width(sites: Iterable[Site], shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return how many dimensions sites of one stack have, by the first whose shape shows it.

    Raises:
        CheckpointError: none does, because all are packed, or the shape is not that of a site.
    """
    seen = ""
    for site in sites:
        width = _width(site, shapes)
        if width is not None:
            return width
        seen = site.gain
    raise CheckpointError(
        f"{seen} is quantized, and no float vector of the layers shows the hidden size; give the "
        "model before it was quantized"
    )


def _width(site: Site, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """Return the length of a site's dimension, None for a packed weight without a bias."""
    shape = shapes[site.gain]
    ranks = (1,) if site.kind != "dense" else (2, 3) if site.expert else (2,)
    if site.kind == "dense" and shape[1:] == (1,):  # as a packed one is given
        return shapes[site.bias][-1] if site.bias and shapes[site.bias] else None
    experts = shape[:-2]  # their number, where all are in one tensor
    if len(shape) not in ranks or (site.bias and shapes[site.bias] != (*experts, shape[site.axis])):
        raise _wrong_shape(site, shapes, "any dimensions")
    return shape[site.axis]


def _wrong_shape(
    site: Site, shapes: Mapping[str, tuple[int, ...]], dimensions: str
) -> CheckpointError:
    bias = f" and its bias {list(shapes[site.bias])}" if site.bias else ""
    return CheckpointError(
        f"{site.gain} has shape {list(shapes[site.gain])}{bias}, "
        f"which is not a {site.kind} over {dimensions}"
    )
