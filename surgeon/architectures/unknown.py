"""What a person can do about an architecture without a row."""

from __future__ import annotations

from collections.abc import Mapping

from surgeon.architectures.infer import infer_family
from surgeon.architectures.modules import module_of, pattern_of
from surgeon.architectures.proposals import likely_ends
from surgeon.architectures.sites import one_stream
from surgeon.errors import CheckpointError, UnknownArchitectureError


def way_on(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Say which ``--sites-pattern`` to try on a model of an unknown architecture.

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
        return f"name what ends each layer with --sites-pattern REGEX{likely and f'; {likely}'}"
    output = [site for site in sites if site.role == "output"]
    patterns = dict.fromkeys(pattern_of(module_of(site.gain)) for site in output)
    sign = "1+" if output[0].gain_offset else ""
    return (
        f"its tensor names are those of {family.name.partition('-like')[0]}: if its layers end as "
        f"there, say so with --sites-pattern '{sign}{'|'.join(patterns)}'"
    )
