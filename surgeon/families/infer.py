"""Families of weights that no configuration describes: by tensor names, or by ``sites_pattern``.

Many families share their names. That is no obstacle where they have the same sites: what is asked
of a family here is where its sites are. A ``sites_pattern`` is a regular expression for the paths
of modules; where neither finds a family, an error suggests one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from surgeon.errors import CheckpointError, SelectionError, UnknownArchitectureError
from surgeon.families.family import Family
from surgeon.families.registry import FAMILIES
from surgeon.families.sites import (
    ROLES,
    Kind,
    Role,
    Site,
    gain_and_bias,
    is_expert,
    of_language_model,
    one_stream,
    split_layer,
)
from surgeon.harmless import whole_match

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
"""The shape of every tensor, by name."""


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


def infer_family(label: str, shapes: Shapes) -> Family:
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
            f"depends on the configuration; {_remedy(shapes)}"
        )
    first = fits[0].family
    note = f"; its {' and '.join(sorted(unsure))} norm needs config.json" if unsure else ""
    return replace(
        first,
        name=f"{first.name}-like (by tensor names{note})",
        templates=tuple(t for t in first.templates if t.role not in unsure),
    )


def _fit(family: Family, shapes: Shapes) -> _Fit | None:
    try:
        matched = family.matched_sites(shapes)
        sites = one_stream(family.sites(shapes), shapes)
    except CheckpointError:
        return None
    if not {site for _, site in matched}.issuperset(sites):
        return None  # its experts are the other way round than the row's
    layers = {layer for _, site in matched if (layer := split_layer(site.gain)[0])}
    if not _has_its_norms(family, [site for _, site in matched], layers, shapes):
        return None
    return _Fit(
        family,
        frozenset(replace(site, stack="") for site in sites),  # however the row calls its stacks
        len({template for template, _ in matched}),
        frozenset(layers),
    )


def _has_its_norms(
    family: Family, sites: Iterable[Site], layers: Collection[str], shapes: Shapes
) -> bool:
    """Whether a model of the family could have these sites and no others."""
    found = {role: {(s.stack, s.layer) for s in sites if s.role == role} for role in ROLES}
    gains = {site.gain for site in sites}
    fused = _fused_experts(shapes)
    if found["output"] != found["attention"] or (fused and fused not in gains):
        return False  # some layers are of another kind: experts, say
    if any(site.kind == "rmsnorm" and site.bias is not None for site in sites):
        return False
    if any(template.role == "final" for template in family.templates) and (
        {stack for stack, _ in found["final"]} != {stack for stack, _ in found["output"]}
    ):
        return False
    # A norm that the row does not know may come after what is the last operation by the row, and
    # layers beside the table of tokens are the model, of which these are then a tower.
    around_tokens = [name.split(".")[:-2] for name in shapes if _TOKENS.search(name)]
    return all(
        norm.name in family.inner_norms
        if norm.layer in layers
        else norm.layer.split(".")[:-2] not in around_tokens
        for norm in _norms(shapes)
        if norm.layer and norm.gain not in gains
    )


def _candidates(fits: Iterable[_Fit]) -> str:
    """Name the first family of each set that has the same output sites."""
    kin: dict[frozenset[Site], list[str]] = {}
    for fit in fits:
        output = frozenset(site for site in fit.sites if site.role == "output")
        kin.setdefault(output, []).append(fit.family.name)
    named = (f"{names[0]} (or kin)" if len(set(names)) > 1 else names[0] for names in kin.values())
    return " or ".join(dict.fromkeys(named))


def _remedy(shapes: Shapes) -> str:
    return f"put config.json beside it, or give `sites_pattern` REGEX{_likely_ends(shapes)}"


def suggest_pattern(shapes: Shapes) -> str:
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
        sites = ()
    output = [site for site in sites if site.role == "output"]
    if not output or _fused_experts(shapes) in {site.gain for site in output}:
        return f"name what ends each layer with `sites_pattern` REGEX{_likely_ends(shapes)}"
    patterns = dict.fromkeys(_pattern_of(site.gain.rpartition(".")[0]) for site in output)
    sign = "1+" if output[0].gain_offset else ""
    return (
        f"its tensor names are those of {family.name.partition('-like')[0]}: if its layers end as "
        f"there, say so with `sites_pattern` '{sign}{'|'.join(patterns)}'"
    )


# "1+REGEX": the norms store their gain less 1; "0+REGEX": they store it as it is.
_OFFSET = re.compile(r"([01])\+(.*)", re.DOTALL)

_NORM = re.compile(r"norm|(^|_)ln(_|\d|$)", re.IGNORECASE)
# Norms at the end of a layer come before those at its start and those of queries and keys.
_LIKELY = re.compile(r"post_?(feed_?forward|ffn?|mlp)|output|out\b|final|ln_?2|norm_?2")
_FEED_FORWARD = re.compile(r"post|feed_?forward|ffn?\b|mlp|full_layer|down|fc2|4h_to_h|w[o2]\b")
_UNLIKELY = re.compile(r"att|input|pre_|before|(^|[._])[qkv](uery|ey|alue)?_|_conv|router|embed")
_NO_OUTPUT = re.compile(r"att|router|gate\b|embed")
_FUSED = re.compile(r"(experts|moe).*(down|out|w2|fc2)")
_TOKENS = re.compile(r"(^|\.)(embed_tokens|word_embeddings|tok_embeddings|wte)\.weight$")
_OF_EXPERTS = 3  # axes: experts, outputs, inputs
_SHOWN = 3


def sites_from_pattern(pattern: str, shapes: Shapes) -> tuple[Site, ...]:
    """Make output sites of the modules whose whole path matches a regular expression.

    A module with a vector for a weight is a norm, one with a matrix a dense layer. A dense layer
    stores (outputs, inputs), unless its bias fits the other axis alone. The layer is the first
    integer in the path.

    Args:
        pattern: such as one that ``propose_norms`` gives. ``1+`` before it says that the norms
            multiply by 1 + what they store, and ``0+`` that they multiply by what they store,
            which is taken for granted.
        shapes: the shape of every tensor.

    Raises:
        SelectionError: the pattern is not a regular expression or matches no module, or a module
            that it matches is neither a norm nor a dense layer.
    """
    match = _OFFSET.fullmatch(pattern)
    offset, regex = (float(match[1]), match[2]) if match else (0.0, pattern)
    matches = whole_match(regex)
    modules = {path: leaves for path, leaves in _leaves(shapes).items() if matches(path)}
    if not modules:
        raise SelectionError(f"`sites_pattern` {pattern!r}: {_why_no_module(matches, shapes)}")
    sites = [_site(pattern, path, leaves, shapes) for path, leaves in modules.items()]
    if offset and any(site.kind == "dense" for site in sites):
        raise SelectionError(
            f"`sites_pattern` {pattern!r}: 1+ is for norms, and it matches dense layers"
        )
    return tuple(
        replace(site, gain_offset=offset) for site in sorted(sites, key=lambda s: s.layer or 0)
    )


def says_offset(pattern: str) -> bool:
    """Whether a pattern says what the norms add to the gain that they store."""
    return _OFFSET.fullmatch(pattern) is not None


def _why_no_module(matches: Callable[[str], bool], shapes: Shapes) -> str:
    bare = next(filter(matches, shapes), None)
    if bare is None:
        return f"matches no module{_likely_ends(shapes)}"
    what = "the weights of all experts" if "experts" in bare else "a tensor"
    return f"{bare} is {what}, of shape {list(shapes[bare])}; a pattern names modules with a weight"


def _site(pattern: str, path: str, leaves: Mapping[str, str], shapes: Shapes) -> Site:
    gain, bias = gain_and_bias(leaves)
    shape = shapes[gain] if gain is not None else ()
    if gain is None or len(shape) not in (1, 2):
        raise SelectionError(
            f"`sites_pattern` {pattern!r}: {path} has "
            f"{f'a weight of shape {list(shape)}' if gain else 'no weight'}; "
            "a norm has a vector and a dense layer a matrix"
        )
    kind: Kind = "dense" if len(shape) == 2 else "layernorm" if bias is not None else "rmsnorm"
    axis = int(kind == "dense" and bias is not None and shapes[bias] == shape[1:] != shape[:1])
    number = split_layer(path)[0].rpartition(".")[2]
    layer = int(number) if number else None
    return Site("output", kind, layer, gain, bias, axis, expert=is_expert(gain))


@dataclass(frozen=True)
class _Module:
    """A module with a weight: ``name`` is its path below ``layer``, which is "" outside of them."""

    path: str
    layer: str
    name: str
    gain: str
    bias: str | None


def _modules(shapes: Shapes) -> list[_Module]:
    found = []
    for path, leaves in _leaves(shapes).items():
        gain, bias = gain_and_bias(leaves)
        if gain is not None:
            found.append(_Module(path, *split_layer(path), gain, bias))
    return found


def _norms(shapes: Shapes) -> list[_Module]:
    """Return the modules whose name says norm or ln."""
    return [module for module in _modules(shapes) if _NORM.search(module.path.rpartition(".")[2])]


def _pattern_of(path: str) -> str:
    """Return the pattern of the modules that have a module's place in other layers and experts."""
    layer, _ = split_layer(path)
    parts = [re.escape(part) for part in path.split(".")]
    if layer:
        parts[layer.count(".")] = r"\d+"
    pattern = r"\.".join(parts)
    return re.sub(r"(\bexperts\\\.(?:expert_)?)\d+(?=\\|$)", r"\1\\d+", pattern)


def propose_norms(shapes: Shapes) -> list[tuple[str, int]]:
    """Propose patterns for ``sites_from_pattern``, with how like a layer's end: below 0, unlike.

    A candidate is a module that two or more layers have, whose name says norm or ln, with a vector
    for a gain, of one length in every layer. Which of them is the last operation of a layer the
    names do not say for sure. Those most like it come first, then those of the most layers, else
    in the order of the file.
    """
    hidden = _width(shapes)
    lengths: dict[str, list[tuple[int, ...]]] = {}
    for norm in _norms(shapes):
        lengths.setdefault(_pattern_of(norm.path), []).append(shapes[norm.gain])
    scored = []
    for pattern, found in lengths.items():
        if len(found) > 1 and len(found[0]) == 1 and len(set(found)) == 1:
            name = pattern.replace("\\", "").lower()
            score = 2 * bool(_LIKELY.search(name)) + bool(_FEED_FORWARD.search(name))
            unlike = _UNLIKELY.search(name) or found[0] != (hidden,)
            scored.append((pattern, score - 4 * bool(unlike), len(found)))
    scored.sort(key=lambda one: (-one[1], -one[2]))
    return [(pattern, score) for pattern, score, _ in scored]


def propose_dense(shapes: Shapes) -> list[str]:
    """Propose patterns for the output dense layers of the layers, for models with norms first.

    A candidate is outside attention and gives as many dimensions as the stream has, from another
    number. Those named like the end of a feed-forward block come first, else in the order of the
    file.
    """
    hidden = _width(shapes)
    found = Counter(
        _pattern_of(module.path)
        for module in _modules(shapes)
        if module.layer and _gives(hidden, shapes[module.gain], shapes.get(module.bias or ""))
    )
    # One layer alone, mostly the first, may be without the experts of the others.
    ends = {pattern.rpartition(".")[2] for pattern in found if "experts" in pattern}
    repeated = [p for p, count in found.items() if count > 1 or p.rpartition(".")[2] in ends]
    likely = [pattern for pattern in repeated if not _NO_OUTPUT.search(pattern.lower())]
    return sorted(likely, key=lambda p: not _FEED_FORWARD.search(p.replace("\\", "").lower()))


def _likely_ends(shapes: Shapes) -> str:
    """Say in words what is likely to end a layer, to end an error; nothing if nothing is."""
    shapes = {name: shapes[name] for name in of_language_model(shapes)}
    scored, dense = propose_norms(shapes), propose_dense(shapes)
    norms = [pattern for pattern, score in scored if score >= 0]
    fused = _fused_experts(shapes)
    if not norms and not dense and not fused:
        norms = [pattern for pattern, _ in scored]
    if any("experts" in pattern for pattern in dense):
        dense = ["|".join(dense)]  # a layer ends with the sum of what they give
    likely = [
        " or ".join(f"'{pattern}'" for pattern in patterns[:_SHOWN]) + f" ({what})"
        for what, patterns in (("norms", norms), ("dense layers", dense))
        if patterns
    ]
    said = f"; by names and shapes that is likely {', or '.join(likely)}" if likely else ""
    seen = {(_pattern_of(norm.path), shapes[norm.gain]) for norm in _norms(shapes)}
    if not likely and len(seen) > len(dict(seen)):
        said = "; its layers are of several widths, and REGEX is for those of one"
    if fused:
        said += f"; its experts are fused in {fused}, which no pattern names"
    return said


def _fused_experts(shapes: Shapes) -> str | None:
    return next((n for n, s in shapes.items() if len(s) == _OF_EXPERTS and _FUSED.search(n)), None)


def _width(shapes: Shapes) -> int:
    """Return the size of most norms outside the layers, or else in them, or of most matrices."""
    lengths = Counter(
        (1 + (not norm.layer), shapes[norm.gain][0])
        for norm in _norms(shapes)
        if len(shapes[norm.gain]) == 1
    )
    lengths.update((0, size) for shape in shapes.values() if len(shape) == 2 for size in shape)
    return max(lengths, key=lambda one: (one[0], lengths[one]), default=(0, 0))[1]


def _gives(hidden: int, weight: tuple[int, ...], bias: tuple[int, ...] | None) -> bool:
    # Of a bias there are as many numbers as the layer gives, whichever way round the weight is.
    return len(weight) == 2 and weight[0] != weight[1] and (bias or weight[:1]) == (hidden,)


def _leaves(tensors: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return the tensor names of each module, by their last component."""
    modules: dict[str, dict[str, str]] = {}
    for name in tensors:
        path, _, leaf = name.rpartition(".")
        modules.setdefault(path, {})[leaf] = name
    return modules
