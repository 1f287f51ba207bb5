"""How many layers a configuration says there are, held against the sites in the weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from surgeon.architectures import Site, Stack
from surgeon.errors import CheckpointError

_ONE_STACK = (("num_hidden_layers", "n_layer", "n_layers", "num_layers"),)
# Each group goes before the next. T5 counts both stacks by num_layers, unless the decoder's own
# number is there; BART's num_hidden_layers may be that of the encoder.
_KEYS: Mapping[Stack, tuple[tuple[str, ...], ...]] = {
    "": _ONE_STACK,
    "text": _ONE_STACK,
    "vision": _ONE_STACK,
    "encoder": (("encoder_layers", "num_encoder_layers"), ("num_layers",)),
    "decoder": (("decoder_layers", "num_decoder_layers"), ("num_layers",)),
}
_PART: Mapping[Stack, str] = {"": "text_config", "text": "text_config", "vision": "vision_config"}


def within_config(sites: Iterable[Site], config: Mapping[str, Any], label: str) -> tuple[Site, ...]:
    """Keep the sites of the layers that a model of this configuration has.

    Layers of the weights beyond that number are never run: transformers leaves them out too. A
    configuration that names no number, or several, leaves all.

    Args:
        sites: those that the tensor names show.
        config: the configuration.
        label: its path, for errors.

    Raises:
        CheckpointError: the weights have fewer layers than the configuration says.
    """
    found = tuple(sites)
    wanted = {site.stack: _layers(config, site.stack) for site in found}
    for stack, count in wanted.items():
        of_stack = {s.layer for s in found if (s.stack, s.role) == (stack, "output")}
        if count is not None and of_stack and len(of_stack) < count:
            raise CheckpointError(
                f"{label}: says {count}{stack and ' '}{stack} layers, the weights have "
                f"{len(of_stack)}: the checkpoint is incomplete; fetch it again"
            )
    return tuple(site for site in found if _is_run(site.layer, wanted[site.stack]))


def _is_run(layer: int | None, count: int | None) -> bool:
    return layer is None or count is None or layer < count


def _layers(config: Mapping[str, Any], stack: Stack) -> int | None:
    """Return the number of layers of a stack, None where the configuration leaves it open."""
    if config.get("model_type") == "albert":  # the layers of a group share its parameters
        return _agreed(config, ("num_hidden_groups",))
    part = config.get(_PART.get(stack, ""))
    parts = (part, config) if isinstance(part, Mapping) else (config,)
    counts = (_agreed(one, keys) for one in parts for keys in _KEYS[stack])
    return next((count for count in counts if count is not None), None)


def _agreed(config: Mapping[str, Any], keys: Iterable[str]) -> int | None:
    values = [config[key] for key in keys if config.get(key) is not None]
    usable = all(type(value) is int and value > 0 for value in values)  # bool is no count
    return values[0] if usable and len(set(values)) == 1 else None
