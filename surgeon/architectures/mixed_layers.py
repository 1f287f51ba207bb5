"""Models whose layers are of several kinds, such as with and without experts: is each one whole?"""

from __future__ import annotations

import re
from collections.abc import Iterable

from surgeon.architectures.sites import Role, Site, SiteTemplate, Stack
from surgeon.errors import CheckpointError

_FUSED = re.compile(r"\.experts\.\D")


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
        fused = next((name for name in tensors if _FUSED.search(name)), None)
        if fused is not None:
            raise CheckpointError(
                f"the weights of all experts of a layer are in one tensor, {fused}, which surgeon "
                "does not edit; save them as they are on the Hub, a module for each expert"
            )
