"""Where each model family keeps its norms: one row per family, nothing else to touch."""

from surgeon.architectures.families import FAMILIES, family_of
from surgeon.architectures.family import Family, Objective
from surgeon.architectures.infer import infer_family
from surgeon.architectures.patterns import propose_sites, sites_from_pattern
from surgeon.architectures.sites import (
    ROLES,
    STACKS,
    Kind,
    Role,
    Site,
    SiteTemplate,
    Stack,
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
    "canonical_name",
    "family_of",
    "infer_family",
    "one_stream",
    "propose_sites",
    "sites_from_pattern",
]
