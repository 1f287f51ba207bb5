"""``sites_pattern``: sites by a regular expression for module paths, and which one to try."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from surgeon.errors import SelectionError
from surgeon.families.sites import Kind, Site, gain_and_bias, is_expert, split_layer

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
"""The shape of every tensor, by name."""

# "1+REGEX": the norms store their gain less 1; "0+REGEX": they store it as it is.
_OFFSET = re.compile(r"([01])\+(.*)", re.DOTALL)

_NORM = re.compile(r"norm|(^|_)ln(_|\d|$)", re.IGNORECASE)
# Norms at the end of a layer come before those at its start and those of queries and keys.
_LIKELY = re.compile(r"post_?(feed_?forward|ffn?|mlp)|output|final|ln_?2|norm_?2")
_FEED_FORWARD = re.compile(r"post|feed_?forward|ffn?\b|mlp|full_layer|down|fc2|4h_to_h|w[o2]\b")
_UNLIKELY = re.compile(r"att|input|pre_|before|(^|[._])[qkv](uery|ey|alue)?_|_conv|router|embed")
_NO_OUTPUT = re.compile(r"att|router|gate\b|embed")
_FUSED = re.compile(r"(experts|moe).*(down|out|w2)")
_OF_EXPERTS = 3  # axes: experts, outputs, inputs
_SHOWN = 3


def sites_from_pattern(pattern: str, shapes: Shapes) -> tuple[Site, ...]:
    """Make output sites of the modules whose whole path matches a regular expression.

    A module with a vector for a weight is a norm, one with a matrix a dense layer. A dense layer
    stores (outputs, inputs), unless its bias fits the other axis alone. The layer is the first
    integer in the path.

    Args:
        pattern: such as one that ``propose_sites`` gives. ``1+`` before it says that the norms
            multiply by 1 + what they store, and ``0+`` that they multiply by what they store,
            which is taken for granted.
        shapes: the shape of every tensor.

    Raises:
        SelectionError: the pattern is no regular expression or matches no module, or a module
            that it matches is neither a norm nor a dense layer.
    """
    match = _OFFSET.fullmatch(pattern)
    offset, regex = (float(match[1]), match[2]) if match else (0.0, pattern)
    matches = whole_match(regex)
    modules = {path: leaves for path, leaves in _leaves(shapes).items() if matches(path)}
    if not modules:
        raise SelectionError(f"pattern {pattern!r}: {_why_no_module(matches, shapes)}")
    sites = [_site(pattern, path, leaves, shapes) for path, leaves in modules.items()]
    if offset and any(site.kind == "dense" for site in sites):
        raise SelectionError(f"pattern {pattern!r}: 1+ is for norms, and it matches dense layers")
    return tuple(
        replace(site, gain_offset=offset) for site in sorted(sites, key=lambda s: s.layer or 0)
    )


def whole_match(pattern: str) -> Callable[[str], bool]:
    """Return whether a regular expression matches the whole of a name.

    A record or an edit file may bring the expression along, so that it is not for Python's engine,
    which some keep busy for ever: pydantic's is Rust's, whose time grows with the name alone. It
    has no look-around and no back-references.

    Raises:
        SelectionError: the pattern is no regular expression.
    """
    from pydantic_core import SchemaError, SchemaValidator, core_schema

    try:
        SchemaValidator(core_schema.str_schema(pattern=pattern))  # by itself: ")(" is none
        whole = SchemaValidator(core_schema.str_schema(pattern=rf"\A(?:{pattern})\z"))
    except (SchemaError, UnicodeError) as error:
        reason = str(error).rpartition("\n")[2].removeprefix("error: ").strip()
        raise SelectionError(f"pattern {pattern!r}: no regular expression ({reason})") from error
    return whole.isinstance_python


def says_offset(pattern: str) -> bool:
    """Whether a pattern says what the norms add to the gain that they store."""
    return _OFFSET.fullmatch(pattern) is not None


def _why_no_module(matches: Callable[[str], bool], shapes: Shapes) -> str:
    bare = next(filter(matches, shapes), None)
    if bare is None:
        likely = likely_ends(shapes)
        return f"matches no module{likely and f'; {likely}'}"
    what = "the weights of all experts in one tensor" if "experts" in bare else "a tensor"
    return (
        f"{bare} is {what}, of shape {list(shapes[bare])}, and no module with a weight, which is "
        "what surgeon edits"
    )


def _site(pattern: str, path: str, leaves: Mapping[str, str], shapes: Shapes) -> Site:
    gain, bias = gain_and_bias(leaves)
    shape = shapes[gain] if gain is not None else ()
    if gain is None or len(shape) not in (1, 2):
        raise SelectionError(
            f"pattern {pattern!r}: {path} has "
            f"{f'a weight of shape {list(shape)}' if gain else 'no weight'}; "
            "a norm has a vector and a dense layer a matrix"
        )
    kind: Kind = "dense" if len(shape) == 2 else "layernorm" if bias is not None else "rmsnorm"
    axis = int(kind == "dense" and bias is not None and shapes[bias] == shape[1:] != shape[:1])
    number = split_layer(path)[0].rpartition(".")[2]
    expert = kind == "dense" and is_expert(gain)
    layer = int(number) if number else None
    return Site("output", kind, layer, gain, bias, axis, expert=expert)


@dataclass(frozen=True)
class Module:
    """A module with a weight: ``name`` is its path below ``layer``, which is "" outside of them."""

    path: str
    layer: str
    name: str
    gain: str
    bias: str | None

    @property
    def pattern(self) -> str:
        """The pattern of the modules that have its place in the other layers and experts."""
        return pattern_of(self.path)


def norms_in(shapes: Shapes) -> list[Module]:
    """Return the modules whose name says norm or ln."""
    return [module for module in _modules(shapes) if _NORM.search(module.path.rpartition(".")[2])]


def pattern_of(path: str) -> str:
    """Return the pattern of the modules that have a module's place in other layers and experts."""
    layer, _ = split_layer(path)
    parts = [re.escape(part) for part in path.split(".")]
    if layer:
        parts[layer.count(".")] = r"\d+"
    for number, part in enumerate(parts[1:], 1):
        if parts[number - 1] == "experts" and part.isdecimal():
            parts[number] = r"\d+"
    return r"\.".join(parts)


def propose_sites(shapes: Shapes) -> list[str]:
    """Propose patterns for ``sites_from_pattern``: norms that two or more layers have.

    A candidate is a module whose name says norm or ln, with a vector for a gain, of one length
    in every layer. Which of them is the last operation of a layer the names cannot tell for sure.

    Returns:
        Regular expressions for module paths: those whose names are most like a layer's end first,
        then those of the most layers, else in the order of the file.
    """
    return [pattern for pattern, _ in _score_norms(shapes)]


def propose_dense(shapes: Shapes) -> list[str]:
    """Propose patterns for the output dense layers of the layers, for models with norms first.

    A candidate is outside attention and gives as many dimensions as the stream has, from another
    number.

    Returns:
        Regular expressions for module paths: those named like the end of a feed-forward block
        first, else in the order of the file.
    """
    hidden = _width(shapes)
    found = Counter(
        module.pattern
        for module in _modules(shapes)
        if module.layer and _gives(hidden, shapes[module.gain], shapes.get(module.bias or ""))
    )
    repeated = [p for p, count in found.items() if count > 1 and not _NO_OUTPUT.search(p.lower())]
    return sorted(repeated, key=lambda pattern: not _FEED_FORWARD.search(_plain(pattern)))


def likely_ends(shapes: Shapes) -> str:
    """Say in words what is likely to end a layer, for an error; nothing if nothing is."""
    norms = [pattern for pattern, score in _score_norms(shapes) if score >= 0]
    dense = propose_dense(shapes)
    cubes = (name for name, shape in shapes.items() if len(shape) == _OF_EXPERTS)
    fused = next(filter(_FUSED.search, cubes), None)
    if not norms and not dense and not fused:
        norms = propose_sites(shapes)
    if any("experts" in pattern for pattern in dense):
        dense = ["|".join(dense)]  # a layer ends with the sum of what they give
    likely = [
        " or ".join(f"'{pattern}'" for pattern in patterns[:_SHOWN]) + f" ({what})"
        for what, patterns in (("norms", norms), ("dense layers", dense))
        if patterns
    ]
    notes = [
        f"by names and shapes that is likely {', or '.join(likely)}" if likely else "",
        f"its experts are fused in {fused}, and surgeon does not edit those" if fused else "",
    ]
    return "; ".join(filter(None, notes))


def _score_norms(shapes: Shapes) -> list[tuple[str, int]]:
    """Return the patterns of norms, with how like a layer's end they are: below 0, unlike it."""
    hidden = _width(shapes)
    lengths: dict[str, list[tuple[int, ...]]] = {}
    for norm in norms_in(shapes):
        if norm.layer:
            lengths.setdefault(norm.pattern, []).append(shapes[norm.gain])
    scored = []
    for pattern, found in lengths.items():
        if len(found) > 1 and len(found[0]) == 1 and len(set(found)) == 1:
            name = _plain(pattern)
            score = 2 * bool(_LIKELY.search(name)) + bool(_FEED_FORWARD.search(name))
            unlike = _UNLIKELY.search(name) or found[0] != (hidden,)
            scored.append((pattern, score - 4 * bool(unlike), len(found)))
    scored.sort(key=lambda one: (-one[1], -one[2]))
    return [(pattern, score) for pattern, score, _ in scored]


def _width(shapes: Shapes) -> int:
    """Return how many dimensions most norms outside the layers have, or else most in them."""
    lengths = Counter(
        (not norm.layer, shapes[norm.gain][0])
        for norm in norms_in(shapes)
        if len(shapes[norm.gain]) == 1
    )
    ranked = sorted(lengths, key=lambda one: (one[0], lengths[one]), reverse=True)
    return ranked[0][1] if ranked else 0


def _gives(hidden: int, weight: tuple[int, ...], bias: tuple[int, ...] | None) -> bool:
    if len(weight) != 2 or weight[0] == weight[1] or bias not in (None, (hidden,)):
        return False
    return weight[0] == hidden or (bias is not None and weight[1] == hidden)


def _modules(shapes: Shapes) -> list[Module]:
    found = []
    for path, leaves in _leaves(shapes).items():
        gain, bias = gain_and_bias(leaves)
        if gain is not None:
            found.append(Module(path, *split_layer(path), gain, bias))
    return found


def _leaves(tensors: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return the tensor names of each module, by their last component."""
    modules: dict[str, dict[str, str]] = {}
    for name in tensors:
        path, _, leaf = name.rpartition(".")
        modules.setdefault(path, {})[leaf] = name
    return modules


def _plain(pattern: str) -> str:
    return pattern.replace("\\", "").lower()
