"""A row of the registry, and how it finds its sites among a checkpoint's tensor names."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from surgeon.errors import CheckpointError
from surgeon.families.sites import (
    BIAS_NAMES,
    GAIN_NAMES,
    Kind,
    Role,
    Site,
    Stack,
    gain_and_bias,
    in_order,
    is_expert,
    of_language_model,
)

_USUAL_PADDING = 1  # the token that RoBERTa pads with, where the configuration does not say
_LEAF = rf"(?:[._](?P<leaf>{'|'.join(filter(None, GAIN_NAMES + BIAS_NAMES))}))?"
_NUMBER = r"(?P<{}>0|[1-9]\d{{0,4}})"
_JOINED_EXPERTS = re.compile(r"\.experts\.(?!e_score)\D")

Objective: TypeAlias = Literal["mlm", "clm", "plm", "denoising", "drift"]


@dataclass(frozen=True)
class SiteTemplate:
    """The module path of a site below the model prefix, ``{layer}`` standing for the number.

    ``{expert}`` stands for that of an expert: all experts of a layer write to the stream. ``among``
    names the kind of layers that have it, where a model mixes several: those with experts, say.
    ``only_layer`` marks an operation that follows one layer alone: where it is there, it is that
    layer's last operation, in place of the site that the other layers have.
    """

    role: Role
    kind: Kind
    path: str
    axis: int = 0
    stack: Stack = ""
    gain_offset: float = 0.0
    only_layer: int | None = None
    among: str = ""

    def at(self, layer: int | None, expert: int = 0) -> str:
        """Return the path in a layer, and there of an expert."""
        return self.path.format(layer=layer, expert=expert)

    def prefixes(self, tensors: Iterable[str]) -> set[str]:
        """Return what stands before the path in the tensor names that it matches."""
        pattern = re.compile(rf"(?P<prefix>(?:.*\.)?){self._pattern}")
        return {match["prefix"] for match in map(pattern.fullmatch, tensors) if match}

    def sites(self, prefix: str, tensors: Iterable[str]) -> list[Site]:
        """Find the sites under a model prefix, by layer, then expert.

        Raises:
            CheckpointError: a layer or an expert is missing between others, or a gain beside its
                bias.
        """
        pattern = re.compile(re.escape(prefix) + self._pattern)
        modules: dict[tuple[int | None, int], dict[str, str]] = {}
        for match in map(pattern.fullmatch, tensors):
            if match:
                found = match.groupdict()
                layer = int(found["layer"]) if "layer" in found else self.only_layer
                place = layer, int(found.get("expert", 0))
                modules.setdefault(place, {})[found["leaf"] or ""] = match[0]
        self._check_none_is_missing(modules)
        ordered = sorted(modules, key=lambda place: (place[0] or 0, place[1]))
        return [self._site(place, modules[place]) for place in ordered]

    @property
    def _pattern(self) -> str:
        path = re.escape(self.path)
        for number in ("layer", "expert"):
            path = path.replace(re.escape(f"{{{number}}}"), _NUMBER.format(number))
        return path + _LEAF

    def _check_none_is_missing(self, places: Collection[tuple[int | None, int]]) -> None:
        layers = {layer for layer, _ in places if layer is not None}
        experts = {expert for _, expert in places}
        wanted = layers if self.among else range(max(layers, default=-1) + 1)
        for place in itertools.product(wanted, range(max(experts, default=-1) + 1)):
            if place not in places:
                raise CheckpointError(
                    f"the weights have no {self.at(*place)}, though others like it are there: the "
                    "checkpoint is incomplete"
                )

    def _site(self, place: tuple[int | None, int], leaves: Mapping[str, str]) -> Site:
        gain, bias = gain_and_bias(leaves)
        if gain is None:
            raise CheckpointError(f"the weights have a bias but no gain for {self.at(*place)}")
        return Site(
            role=self.role,
            kind=self.kind,
            layer=place[0],
            gain=gain,
            bias=bias,
            # Blocks lie along the inputs, so that the outputs come first.
            axis=1 if gain.endswith("_blocks") else self.axis,
            stack=self.stack,
            gain_offset=self.gain_offset,
            expert=is_expert(gain),
        )


def layers_of(
    kind: Kind,
    path: str,
    output: str,
    *attention: str,
    embeddings: str = "",
    final: str = "",
    norm: Kind = "layernorm",
    axis: int = 0,
    gain_offset: float = 0.0,
) -> tuple[SiteTemplate, ...]:
    """Return the templates of a model whose layers, and the blocks in them, end in one kind.

    Args:
        kind: what they end in: a norm in post-norm models, else a dense layer.
        path: of the layers, without their numbers.
        output: the last operation, below a layer.
        attention: the last operation of each attention block, below a layer.
        embeddings: the norm of the embeddings ("": there is none).
        final: the norm after the last layer ("": there is none).
        norm: the kind of these two.
        axis: of a dense layer's weight, the one of its outputs.
        gain_offset: what the norms add to the gain that they store.
    """
    below = [f"{path}.{{layer}}.{module}" for module in (output, *attention)]
    found: list[tuple[Role, Kind, str]] = [
        ("output", kind, below[0]),
        *(("attention", kind, block) for block in below[1:]),
        ("embeddings", norm, embeddings),
        ("final", norm, final),
    ]
    return tuple(
        SiteTemplate(role, of, module, axis=axis)
        if of == "dense"
        else SiteTemplate(role, of, module, gain_offset=gain_offset)
        for role, of, module in found
        if module
    )


def under(
    module: str, stack: Stack, templates: tuple[SiteTemplate, ...]
) -> tuple[SiteTemplate, ...]:
    """Place templates under a module. What a stack does not have, its tensor names do not match."""
    return tuple(replace(t, path=f"{module}.{t.path}", stack=stack) for t in templates)


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
        every = self.matched_sites(tensors)
        last = {(s.role, s.stack, s.layer) for t, s in every if t.only_layer is not None}
        return in_order(
            site
            for template, site in every
            if template.only_layer is not None or (site.role, site.stack, site.layer) not in last
        )

    def matched_sites(self, tensors: Collection[str]) -> list[tuple[SiteTemplate, Site]]:
        """Find what each template matches, the sites that another one replaces among it.

        Raises:
            CheckpointError: as ``sites``.
        """
        if self.unused:
            tensors = [name for name in tensors if not name.startswith(self.unused)]
        outputs = [template for template in self.templates if template.role == "output"]
        prefixes = sorted({prefix for t in outputs for prefix in t.prefixes(tensors)})
        prefixes = of_language_model(prefixes)
        if not prefixes:
            raise CheckpointError(self._why_no_layer(tensors))
        if len(prefixes) > 1:
            found = ", ".join(map(repr, prefixes))
            raise CheckpointError(
                f"the weights hold several models, under {found}: split them into one directory "
                "each"
            )
        matched = [(t, site) for t in self.templates for site in t.sites(prefixes[0], tensors)]
        self._check_mixed_layers(matched)
        _check_all_experts(matched, tensors)
        return matched

    def _why_no_layer(self, tensors: Iterable[str]) -> str:
        wanted = self.templates[0].at(0)
        inside = [name for name in tensors if f"{wanted}." in name]
        adapted = any(".base_layer." in name for name in inside)
        if inside and not adapted:
            remedy = f"there is {inside[0]}; if that is quantized, give the model before it was"
        else:
            remedy = (
                f"the weights are not those of a {self.name.removesuffix(' model')} model; "
                + ("merge its adapters into it" if adapted else "check model_type in config.json")
            )
        return f"no tensor named like {wanted}.weight: {remedy}"

    def _check_mixed_layers(self, found: Iterable[tuple[SiteTemplate, Site]]) -> None:
        """Check that each layer is of one kind and has all that layers of its kind have."""
        matched: dict[tuple[Role, Stack], dict[SiteTemplate, set[int]]] = {}
        for template, site in found:
            if template.among and site.layer is not None:
                of_role = matched.setdefault((site.role, site.stack), {})
                of_role.setdefault(template, set()).add(site.layer)
        for place, of_role in matched.items():
            mixed = [t for t in self.templates if t.among and (t.role, t.stack) == place]
            for layer in range(max(set().union(*of_role.values())) + 1):
                _check_layer(layer, mixed, of_role)


def _check_layer(
    layer: int, mixed: list[SiteTemplate], of_role: Mapping[SiteTemplate, set[int]]
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


def _check_all_experts(found: Iterable[tuple[SiteTemplate, Site]], tensors: Iterable[str]) -> None:
    """Check that no expert is left out because all are in one tensor of another name."""
    experts = [site.gain for _, site in found if site.expert]
    joined = next(filter(_JOINED_EXPERTS.search, tensors), None)
    if experts and joined and not any(map(_JOINED_EXPERTS.search, experts)):
        raise CheckpointError(
            f"the weights of all experts of a layer are in one tensor, {joined}, not where this "
            "family has them; save them as they are on the Hub"
        )
