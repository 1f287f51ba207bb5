"""The family of weights that have no configuration, by their tensor names.

Many families share their names. That is no obstacle where they have the same sites: what is asked
of a family here is where its sites are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from surgeon.errors import CheckpointError, UnknownArchitectureError
from surgeon.families.family import Family
from surgeon.families.patterns import likely_ends, norms_in, pattern_of
from surgeon.families.registry import FAMILIES
from surgeon.families.sites import ROLES, Role, Site, one_stream, split_layer


@dataclass(frozen=True)
class _Fit:
    """A row that the weights fit: its sites in them, and how many of its templates matched."""

    family: Family
    sites: frozenset[Site]
    templates: int
    layers: frozenset[str]

    def is_worse_than(self, other: _Fit) -> bool:
        """Whether the other row describes the same layers by more templates."""
        return other.templates > self.templates and other.layers >= self.layers


def infer_family(label: str, shapes: Mapping[str, tuple[int, ...]]) -> Family:
    """Return a row for weights without a configuration, named after the first that they fit.

    Where several rows fit, those that describe the weights by fewer templates are out. The rest
    must agree on the output sites; a role in which they differ otherwise is left out.

    Args:
        label: the weight file, for errors.
        shapes: the shape of every tensor.

    Raises:
        UnknownArchitectureError: no row fits, or the configuration decides between those that do.
    """
    every = [fit for family in FAMILIES if (fit := _fit(family, shapes)) is not None]
    fits = [fit for fit in every if not any(map(fit.is_worse_than, every))]
    if not fits:
        raise UnknownArchitectureError(
            f"{label}: its tensor names are those of no family that surgeon knows; "
            f"{_remedy(shapes)}"
        )
    agreed = frozenset.intersection(*(fit.sites for fit in fits))
    unsure: set[Role] = {site.role for fit in fits for site in fit.sites - agreed}
    # A family of two rows has one for each value of a key of the configuration.
    rows = [family.model_types for family in FAMILIES]
    if "output" in unsure or any(rows.count(fit.family.model_types) > 1 for fit in fits):
        raise UnknownArchitectureError(
            f"{label}: by its tensor names it is {_candidates(fits)}, and where a layer of it ends "
            f"only the configuration tells; {_remedy(shapes)}"
        )
    first = fits[0].family
    note = f"; its {' and '.join(sorted(unsure))} norm needs config.json" if unsure else ""
    return replace(
        first,
        name=f"{first.name}-like (by tensor names{note})",
        templates=tuple(t for t in first.templates if t.role not in unsure),
    )


def _fit(family: Family, shapes: Mapping[str, tuple[int, ...]]) -> _Fit | None:
    try:
        places = family.places(shapes)
        sites = one_stream(family.sites(shapes), shapes)
    except CheckpointError:
        return None
    layers = {layer for _, site in places if (layer := split_layer(site.gain)[0])}
    if not _has_its_norms(family, [site for _, site in places], layers, shapes):
        return None
    return _Fit(
        family,
        frozenset(replace(site, stack="") for site in sites),  # however the row calls its stacks
        len({template for template, _ in places}),
        frozenset(layers),
    )


def _has_its_norms(
    family: Family,
    sites: Iterable[Site],
    layers: Collection[str],
    shapes: Mapping[str, tuple[int, ...]],
) -> bool:
    """Whether a model of the family could have these sites and no others."""
    found = {role: {(s.stack, s.layer) for s in sites if s.role == role} for role in ROLES}
    if found["output"] != found["attention"]:
        return False  # some layers are of another kind: experts, say
    if any(site.kind == "rmsnorm" and site.bias is not None for site in sites):
        return False
    if any(template.role == "final" for template in family.templates) and (
        {stack for stack, _ in found["final"]} != {stack for stack, _ in found["output"]}
    ):
        return False
    # A norm that the row does not know may come after what is the last operation by the row.
    gains = {site.gain for site in sites}
    others = [norm for norm in norms_in(shapes) if norm.layer in layers and norm.gain not in gains]
    return all(norm.name in family.inner_norms for norm in others)


def _candidates(fits: Iterable[_Fit]) -> str:
    """Name the first family of each set that has the same output sites."""
    kin: dict[frozenset[Site], list[str]] = {}
    for fit in fits:
        output = frozenset(site for site in fit.sites if site.role == "output")
        kin.setdefault(output, []).append(fit.family.name)
    named = (f"{names[0]} (or kin)" if len(set(names)) > 1 else names[0] for names in kin.values())
    return " or ".join(dict.fromkeys(named))


def _remedy(shapes: Mapping[str, tuple[int, ...]]) -> str:
    likely = likely_ends(shapes)
    return f"put config.json beside it, or give `sites_pattern` REGEX{likely and f'; {likely}'}"


def suggest_pattern(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Say which ``sites_pattern`` to try on a model of an unknown architecture.

    If its tensors are named like those of a known family, it is the one for that family's output
    sites.

    Args:
        shapes: the shape of every tensor.
    """
    try:
        family = infer_family("", shapes)
        sites = one_stream(family.sites(shapes), shapes)
    except (CheckpointError, UnknownArchitectureError):
        likely = likely_ends(shapes)
        return f"name what ends each layer with `sites_pattern` REGEX{likely and f'; {likely}'}"
    output = [site for site in sites if site.role == "output"]
    patterns = dict.fromkeys(pattern_of(site.gain.rpartition(".")[0]) for site in output)
    sign = "1+" if output[0].gain_offset else ""
    return (
        f"its tensor names are those of {family.name.partition('-like')[0]}: if its layers end as "
        f"there, say so with `sites_pattern` '{sign}{'|'.join(patterns)}'"
    )
