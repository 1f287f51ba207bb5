"""Where each model family keeps its norms: one row per family, nothing else to touch."""

from __future__ import annotations

from surgeon.families.family import Family, Objective
from surgeon.families.infer import (
    infer_family,
    propose_dense,
    propose_sites,
    says_offset,
    sites_from_pattern,
    suggest_pattern,
    whole_match,
)
from surgeon.families.registry import FAMILIES, family_of
from surgeon.families.sites import (
    ROLES,
    Kind,
    Role,
    Site,
    Stack,
    by_layer,
    canonical_name,
    in_order,
    is_expert,
    one_stream,
    stream_width,
)

__all__ = [
    "FAMILIES",
    "ROLES",
    "Family",
    "Kind",
    "Objective",
    "Role",
    "Site",
    "Stack",
    "by_layer",
    "canonical_name",
    "family_of",
    "in_order",
    "infer_family",
    "is_expert",
    "one_stream",
    "propose_dense",
    "propose_sites",
    "says_offset",
    "sites_from_pattern",
    "stream_width",
    "suggest_pattern",
    "whole_match",
]
