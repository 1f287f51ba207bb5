"""The registry: one row per model family, in modules by subject.

Templates are module paths below any model prefix (``bert.``, ``transformer.``, none, …), with
``{layer}`` for the layer number. Prefixes need no table: whatever stands before the output
template in the tensor names is the prefix.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from surgeon.errors import UnknownArchitectureError
from surgeon.families.decoders import DECODERS, HYBRIDS, LLAMAS, MIXTURES
from surgeon.families.encoder_decoders import SEQUENCE_TO_SEQUENCE
from surgeon.families.encoders import ENCODERS, PERCEPTION
from surgeon.families.family import Family

# Parts of a configuration that have the language model, or again such a part.
_PARTS = ("vlm_config", "thinker_config", "llm_config", "language_config", "text_config")

FAMILIES: tuple[Family, ...] = (
    *ENCODERS, *DECODERS, *LLAMAS, *MIXTURES, *HYBRIDS, *SEQUENCE_TO_SEQUENCE, *PERCEPTION,
)  # fmt: skip


def family_of(model_type: object, config: Mapping[str, Any] | None = None) -> Family:
    """Return the row for a ``model_type`` and the rest of the configuration.

    A multimodal model without a row has that of its language model, which is the class that
    ``language_model`` describes.

    Raises:
        UnknownArchitectureError: there is none.
    """
    keys, rows = config or {}, _rows(model_type)
    text = language_model(keys)
    if not rows and text is not keys and _rows(text.get("model_type")):
        inner = family_of(text["model_type"], text)
        if inner.objective != "drift":
            return replace(inner, name=f"{inner.name} in a multimodal model")
    for family in rows:
        if all(keys.get(key) in values for key, values in family.when.items()):
            return family
    if rows:
        found = ", ".join(f"{key} {keys.get(key)!r}" for row in rows for key in row.when)
        raise UnknownArchitectureError(
            f"config.json: surgeon does not know the layers of {model_type} with {found}"
        )
    known = len({name for family in FAMILIES for name in family.model_types})
    raise UnknownArchitectureError(
        f"config.json: model_type {model_type!r} is not an architecture that surgeon knows "
        f"(docs/models.md names the {known} that it does)"
    )


def language_model(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the part of a configuration that describes the language model; all, without one."""
    while isinstance(part := next(filter(None, map(config.get, _PARTS)), None), Mapping):
        config = part
    return config


def known_family(config: Mapping[str, Any]) -> Family | None:
    """Return the row for a configuration; None if there is none."""
    with contextlib.suppress(UnknownArchitectureError):
        return family_of(config.get("model_type"), config)
    return None


def _rows(model_type: object) -> list[Family]:
    return [family for family in FAMILIES if model_type in family.model_types]
