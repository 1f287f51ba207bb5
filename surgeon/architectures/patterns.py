"""Sites of models that no row of the registry describes, by a person's pattern."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from surgeon.architectures.modules import layer_at, modules_of
from surgeon.architectures.proposals import likely_ends
from surgeon.architectures.sites import Kind, Site, gain_and_bias, is_expert
from surgeon.errors import SelectionError

# "1+REGEX": the norms store their gain less 1; "0+REGEX": they store it as it is.
_OFFSET = re.compile(r"([01])\+(.*)", re.DOTALL)


def sites_from_pattern(pattern: str, shapes: Mapping[str, tuple[int, ...]]) -> tuple[Site, ...]:
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
    offset, regex = _offset_and_regex(pattern)
    matches = whole_match(regex)
    modules = {module: leaves for module, leaves in modules_of(shapes).items() if matches(module)}
    if not modules:
        raise SelectionError(f"pattern {pattern!r}: {_why_no_module(matches, shapes)}")
    sites = [_site(pattern, module, leaves, shapes) for module, leaves in modules.items()]
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


def _offset_and_regex(pattern: str) -> tuple[float, str]:
    match = _OFFSET.fullmatch(pattern)
    return (float(match[1]), match[2]) if match else (0.0, pattern)


def _why_no_module(matches: Callable[[str], bool], shapes: Mapping[str, tuple[int, ...]]) -> str:
    bare = next(filter(matches, shapes), None)
    if bare is None:
        likely = likely_ends(shapes)
        return f"matches no module{likely and f'; {likely}'}"
    what = "the weights of all experts in one tensor" if "experts" in bare else "a tensor"
    return (
        f"{bare} is {what}, of shape {list(shapes[bare])}, and no module with a weight, which is "
        "what surgeon edits"
    )


def _site(
    pattern: str, module: str, leaves: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]
) -> Site:
    gain, bias = gain_and_bias(leaves)
    shape = shapes[gain] if gain is not None else ()
    if gain is None or len(shape) not in (1, 2):
        raise SelectionError(
            f"pattern {pattern!r}: {module} has "
            f"{f'a weight of shape {list(shape)}' if gain else 'no weight'}; "
            "a norm has a vector and a dense layer a matrix"
        )
    kind: Kind = "dense" if len(shape) == 2 else "layernorm" if bias is not None else "rmsnorm"
    axis = int(kind == "dense" and bias is not None and shapes[bias] == shape[1:] != shape[:1])
    path = module.split(".")
    at = layer_at(path)
    layer = None if at is None else int(path[at])
    expert = kind == "dense" and is_expert(gain)
    return Site("output", kind, layer, gain, bias, axis, expert=expert)
