"""The axes of a grid: what an entry of its selections, operations and layers stands for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from surgeon.surgery.recipe import parse_numbers
from surgeon.surgery.recipe_file import load_recipe

Fields: TypeAlias = Mapping[str, Any]
"""Some fields of a recipe."""


def expand_selection(fields: Fields) -> Iterator[dict[str, Any]]:
    """Yield the fields of each selection that one entry of ``selections`` stands for.

    Raises:
        SelectionError: ``each`` is no list of numbers, or ``recipe`` names no valid one.
    """
    rest = {name: value for name, value in fields.items() if name not in ("each", "recipe")}
    if "recipe" in fields:
        recipe = load_recipe(str(fields["recipe"])).to_json()
        rest = {**{name: value for name, value in recipe.items() if value is not None}, **rest}
    if "each" not in fields:
        yield rest
        return
    for dim in parse_numbers("each", str(fields["each"])):
        yield {**rest, "dims": (dim,)}


def expand_operation(fields: Fields) -> Iterator[dict[str, Any]]:
    """Yield the fields of each operation that one entry of ``operations`` stands for."""
    factors = fields.get("factor")
    if not isinstance(factors, Sequence) or isinstance(factors, str):
        yield dict(fields)
        return
    for factor in factors:
        yield {**fields, "factor": factor}


def parse_layers(layers: str | int) -> dict[str, Any]:
    """Return the recipe's field for an entry of ``layers``.

    Raises:
        SelectionError: it is neither all nor a list of numbers.
    """
    return {} if layers == "all" else {"layers": parse_numbers("layers", str(layers))}
