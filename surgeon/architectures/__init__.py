"""Where each model family keeps its norms: one row per family, nothing else to touch."""

from surgeon.architectures.families import FAMILIES, family_of
from surgeon.architectures.family import Family, Objective
from surgeon.architectures.infer import infer_family
from surgeon.architectures.patterns import says_offset, sites_from_pattern
from surgeon.architectures.proposals import propose_dense, propose_sites
from surgeon.architectures.sites import (
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
from surgeon.architectures.unknown import way_on

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
