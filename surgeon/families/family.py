"""A row of the registry, and how it finds its sites among a checkpoint's tensor names."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from surgeon.errors import CheckpointError
from surgeon.families.sites import (
    Role,
    Site,
    SiteTemplate,
    Stack,
    gain_and_bias,
    in_order,
)

_USUAL_PADDING = 1  # the token that RoBERTa pads with, where the configuration does not say

Objective: TypeAlias = Literal["mlm", "clm", "plm", "denoising", "drift"]


@dataclass(frozen=True)
class Family:
    """A row of the registry.

    ``model_types`` are the values of ``model_type`` in ``config.json``; ``when`` gives the
    values that other keys of it must have, None for an absent one. ``objective`` is what its
    language-model head is measured by, "drift" if there is no measure for one; ``head`` are
    fragments of tensor names that only a checkpoint with the head has (empty: the head is tied
    to the embeddings and known by ``architectures`` in the configuration). ``position_offset``
    is how many rows of the position table are reserved: "after padding" for those that number
    positions from ``pad_token_id`` + 1 on. ``inner_norms`` are the norms that a
    layer may have and that are no sites, as they are called below the layer. What begins with
    ``unused`` is in the weights for training alone: transformers does not load it.
    """

    name: str
    model_types: tuple[str, ...]
    templates: tuple[SiteTemplate, ...]
    objective: Objective
    head: tuple[str, ...] = ()
    position_offset: int | Literal["after padding"] = 0
    inner_norms: tuple[str, ...] = ()
    when: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    unused: str = ""

    def reserved_positions(self, config: Mapping[str, object]) -> int:
        """Return how many rows of the position table no token of a text gets."""
        if self.position_offset != "after padding":
            return self.position_offset
        pad = config.get("pad_token_id")
        return pad + 1 if isinstance(pad, int) and pad >= 0 else _USUAL_PADDING + 1

    def sites(self, tensors: Collection[str]) -> tuple[Site, ...]:
        """Find every site of the family among tensor names, by role, then stack, then layer.

        Raises:
            CheckpointError: no layer is there, one is missing between others, or the names
                hold several models of the family.
        """
        every = self.places(tensors)
        last = {(s.role, s.stack, s.layer) for t, s in every if t.only_layer is not None}
        return in_order(
            site
            for template, site in every
            if template.only_layer is not None or (site.role, site.stack, site.layer) not in last
        )

    def places(self, tensors: Collection[str]) -> list[tuple[SiteTemplate, Site]]:
        """Find what each template matches, the sites that another one replaces among it.

        Raises:
            CheckpointError: as ``sites``.
        """
        if self.unused:
            tensors = [name for name in tensors if not name.startswith(self.unused)]
        outputs = [template for template in self.templates if template.role == "output"]
        prefixes = sorted({prefix for t in outputs for prefix in t.prefixes(tensors)})
        if not prefixes:
            wanted = self.templates[0].at(0)
            raise CheckpointError(
                f"no tensor named like {wanted}.weight: the weights are not those of a {self.name} "
                "model; check model_type in config.json"
            )
        if len(prefixes) > 1:
            found = ", ".join(map(repr, prefixes))
            raise CheckpointError(
                f"the weights hold several models, under {found}: split them into one directory "
                "each"
            )
        places = [(t, site) for t in self.templates for site in t.sites(prefixes[0], tensors)]
        check_mixed_layers(self.templates, places)
        check_experts_apart(self.templates, tensors)
        return places


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


TWO_NORMS = ("input_layernorm", "post_attention_layernorm")
QK_NORMS = ("self_attn.q_norm", "self_attn.k_norm")
QUERY_NORMS = ("self_attn.query_layernorm", "self_attn.key_layernorm")

DOWN_PROJ = SiteTemplate("output", "dense", "layers.{layer}.mlp.down_proj")
ATTENTION = SiteTemplate("attention", "dense", "layers.{layer}.self_attn.o_proj")
RMSNORM = SiteTemplate("final", "rmsnorm", "norm")
LAYERNORM = SiteTemplate("final", "layernorm", "norm")
# Gemma and Nemotron multiply by 1 + what they store.
RMSNORM_1P = SiteTemplate("final", "rmsnorm", "norm", gain_offset=1.0)
LAYERNORM_1P = SiteTemplate("final", "layernorm", "norm", gain_offset=1.0)

# In hybrids most layers have an attention that is linear in the length.
HYBRID = (
    SiteTemplate("attention", "dense", "layers.{layer}.self_attn.o_proj", among="full"),
    SiteTemplate("attention", "dense", "layers.{layer}.linear_attn.out_proj", among="linear"),
)
HYBRID_NORMS = (*TWO_NORMS, *QK_NORMS, "linear_attn.norm")
# The block that predicts more than one token ahead.
MORE_TOKENS = "mtp."


_FUSED_EXPERTS = re.compile(r"\.experts\.\D")


def check_mixed_layers(
    templates: Iterable[SiteTemplate], places: Iterable[tuple[SiteTemplate, Site]]
) -> None:
    """Check that each layer is of one kind and has all that layers of its kind have.

    Args:
        templates: those of the family.
        places: what each template matches.

    Raises:
        CheckpointError: a part of a layer is missing, or it is of two kinds.
    """
    matched: dict[tuple[Role, Stack], dict[SiteTemplate, set[int]]] = {}
    for template, site in places:
        if template.among and site.layer is not None:
            of_role = matched.setdefault((site.role, site.stack), {})
            of_role.setdefault(template, set()).add(site.layer)
    for (role, stack), of_role in matched.items():
        mixed = [t for t in templates if t.among and (t.role, t.stack) == (role, stack)]
        for layer in range(max(set().union(*of_role.values())) + 1):
            _check_layer(layer, mixed, of_role)


def _check_layer(
    layer: int, mixed: list[SiteTemplate], of_role: dict[SiteTemplate, set[int]]
) -> None:
    there = [template for template, layers in of_role.items() if layer in layers]
    kinds = {template.among for template in there}
    if len(kinds) > 1:
        both = " and ".join(template.at(layer) for template in there)
        raise CheckpointError(f"the weights have {both}, and a layer ends with one of them")
    # One that no layer has is none of this model's: not all have experts that all tokens share.
    whole = [t for t in of_role if t.among in kinds]
    if there != whole or not there:
        first_of_kind = {t.among: t for t in reversed(mixed)}.values()
        lacking = [t for t in whole if t not in there] or first_of_kind
        wanted = " or ".join(sorted(t.at(layer) for t in lacking))
        raise CheckpointError(
            f"the weights have no {wanted}, though other layers do: the checkpoint is incomplete"
        )


def check_experts_apart(templates: Iterable[SiteTemplate], tensors: Iterable[str]) -> None:
    """Check that no expert is left out because all are in one tensor.

    Raises:
        CheckpointError: they are, in a family that has a module for each.
    """
    if any("{expert}" in template.path for template in templates):
        fused = next((name for name in tensors if _FUSED_EXPERTS.search(name)), None)
        if fused is not None:
            raise CheckpointError(
                f"the weights of all experts of a layer are in one tensor, {fused}, which surgeon "
                "does not edit; save them as they are on the Hub, a module for each expert"
            )
