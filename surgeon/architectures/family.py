"""A row of the registry, and how it finds its sites among a checkpoint's tensor names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from surgeon.architectures.mixed_layers import check_experts_apart, check_mixed_layers
from surgeon.architectures.sites import Site, SiteTemplate, in_order
from surgeon.errors import CheckpointError

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
