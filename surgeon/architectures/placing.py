"""Templates placed under the module of a stack."""

from __future__ import annotations

from dataclasses import replace

from surgeon.architectures.sites import SiteTemplate, Stack


def under(
    module: str, stack: Stack, templates: tuple[SiteTemplate, ...]
) -> tuple[SiteTemplate, ...]:
    """Place templates under a module. What a stack does not have, its tensor names do not match."""
    return tuple(replace(t, path=f"{module}.{t.path}", stack=stack) for t in templates)
