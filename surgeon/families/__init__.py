"""Where each model family keeps its norms: one row per family, nothing else to touch."""

from __future__ import annotations

from surgeon.families.family import Family as Family
from surgeon.families.infer import infer_family as infer_family
from surgeon.families.infer import says_offset as says_offset
from surgeon.families.infer import sites_from_pattern as sites_from_pattern
from surgeon.families.infer import suggest_pattern as suggest_pattern
from surgeon.families.registry import FAMILIES as FAMILIES
from surgeon.families.registry import family_of as family_of
from surgeon.families.registry import known_family as known_family
from surgeon.families.registry import language_model as language_model
from surgeon.families.sites import ROLES as ROLES
from surgeon.families.sites import Kind as Kind
from surgeon.families.sites import Role as Role
from surgeon.families.sites import Site as Site
from surgeon.families.sites import Stack as Stack
from surgeon.families.sites import by_layer as by_layer
from surgeon.families.sites import canonical_name as canonical_name
from surgeon.families.sites import one_stream as one_stream
