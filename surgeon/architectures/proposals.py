"""What may end a layer of a model that no row of the registry describes, by names and shapes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from surgeon.architectures.modules import (
    dense_in_layers,
    fused_experts,
    norms_in_layers,
    norms_outside_layers,
)

# Norms at the end of a layer come before those at its start and those of queries and keys.
_LIKELY = re.compile(r"post_?(feed_?forward|ffn?|mlp)|output|final|ln_?2|norm_?2")
_FEED_FORWARD = re.compile(r"post|feed_?forward|ffn?\b|mlp|full_layer|down|fc2|4h_to_h|w[o2]\b")
_UNLIKELY = re.compile(r"att|input|pre_|before|(^|[._])[qkv](uery|ey|alue)?_|_conv|router|embed")
_NORMS, _DENSE = 3, 3


def propose_sites(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Propose patterns for ``sites_from_pattern``: norms that two or more layers have.

    A candidate is a module whose name says norm or ln, with a vector for a gain, of one length
    in every layer. Which of them is the last operation of a layer the names cannot tell for sure.

    Args:
        shapes: the shape of every tensor.

    Returns:
        Regular expressions for module paths: those whose names are most like a layer's end first,
        then those of the most layers, else in the order of the file.
    """
    return [pattern for pattern, _ in _norms(shapes)]


def propose_dense(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Propose patterns for the output dense layers of the layers, for models with norms first.

    A candidate is outside attention and gives as many dimensions as the stream has, from another
    number.

    Args:
        shapes: the shape of every tensor.

    Returns:
        Regular expressions for module paths: those named like the end of a feed-forward block
        first, else in the order of the file.
    """
    hidden = _width(shapes)
    found = Counter(
        pattern
        for weight, bias, pattern in dense_in_layers(shapes)
        if _gives(hidden, shapes[weight], shapes.get(bias or ""))
        and not re.search(r"att|router|gate\b|embed", pattern.lower())
    )
    repeated = [pattern for pattern, count in found.items() if count > 1]
    return sorted(repeated, key=lambda pattern: not _FEED_FORWARD.search(_plain(pattern)))


def likely_ends(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Say in words what is likely to end a layer, for an error; nothing if nothing is."""
    norms = [pattern for pattern, score in _norms(shapes) if score >= 0]
    dense = propose_dense(shapes)
    fused = fused_experts(shapes)
    if not norms and not dense and not fused:
        norms = propose_sites(shapes)
    if any("experts" in pattern for pattern in dense):
        dense = ["|".join(dense)]  # a layer ends with the sum of what they give
    likely = [
        " or ".join(f"'{pattern}'" for pattern in patterns) + f" ({what})"
        for what, patterns in (("norms", norms[:_NORMS]), ("dense layers", dense[:_DENSE]))
        if patterns
    ]
    notes = [
        f"by names and shapes that is likely {', or '.join(likely)}" if likely else "",
        f"its experts are fused in {fused}, and surgeon does not edit those" if fused else "",
    ]
    return "; ".join(filter(None, notes))


def _norms(shapes: Mapping[str, tuple[int, ...]]) -> list[tuple[str, int]]:
    """Return the patterns of norms, with how like a layer's end they are: below 0, unlike it."""
    hidden = _width(shapes)
    lengths: dict[str, list[tuple[int, ...]]] = {}
    for gain, pattern in norms_in_layers(shapes):
        lengths.setdefault(pattern, []).append(shapes[gain])
    scored = []
    for pattern, found in lengths.items():
        if len(found) > 1 and len(found[0]) == 1 and len(set(found)) == 1:
            name = _plain(pattern)
            score = 2 * bool(_LIKELY.search(name)) + bool(_FEED_FORWARD.search(name))
            unlike = _UNLIKELY.search(name) or found[0] != (hidden,)
            scored.append((pattern, score - 4 * bool(unlike), len(found)))
    scored.sort(key=lambda one: (-one[1], -one[2]))
    return [(pattern, score) for pattern, score, _ in scored]


def _width(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return how many dimensions most norms outside the layers have, or else most in them."""
    outside = Counter(shapes[gain] for gain in norms_outside_layers(shapes))
    inside = Counter(shapes[gain] for gain, _ in norms_in_layers(shapes))
    widths = [
        shape
        for counted in (outside, inside)
        for shape, _ in counted.most_common()
        if len(shape) == 1
    ]
    return widths[0][0] if widths else 0


def _gives(hidden: int, weight: tuple[int, ...], bias: tuple[int, ...] | None) -> bool:
    if len(weight) != 2 or weight[0] == weight[1] or bias not in (None, (hidden,)):
        return False
    return weight[0] == hidden or (bias is not None and weight[1] == hidden)


def _plain(pattern: str) -> str:
    return pattern.replace("\\", "").lower()
