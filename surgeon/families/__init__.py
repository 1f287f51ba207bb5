"""Where each model family keeps its norms: one row per family, nothing else to touch."""

from __future__ import annotations

from surgeon.families.families import FAMILIES, family_of
from surgeon.families.family import Family, Objective
from surgeon.families.infer import (
    infer_family,
    propose_dense,
    propose_sites,
    says_offset,
    sites_from_pattern,
    way_on,
)
from surgeon.families.sites import (
    ROLES,
    STACKS,
    Kind,
    Role,
    Site,
    SiteTemplate,
    Stack,
    by_layer,
    canonical_name,
    one_stream,
)

__all__ = [
    "FAMILIES",
    "ROLES",
    "STACKS",
    "Family",
    "Kind",
    "Objective",
    "Role",
    "Site",
    "SiteTemplate",
    "Stack",
    "by_layer",
    "canonical_name",
    "family_of",
    "infer_family",
    "one_stream",
    "propose_dense",
    "propose_sites",
    "says_offset",
    "sites_from_pattern",
    "way_on",
]
