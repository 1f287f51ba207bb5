"""How token vectors become the vector of a sentence, as sentence-transformers' files name it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from surgeon.errors import EvaluationError
from surgeon.model.checkpoint import CONFIG
from surgeon.model.files import parse_json, read_object
from surgeon.tasks.tokenizer import length_or_none

Floats: TypeAlias = npt.NDArray[np.float64]

# Each maps the vectors of a sentence's tokens, (tokens, width), to one of them, (width,).
_MODES: Mapping[str, Callable[[Floats], Floats]] = {
    "cls": lambda states: states[0],
    "max": lambda states: states.max(axis=0),
    "mean": lambda states: states.mean(axis=0),
    "mean_sqrt_len_tokens": lambda states: states.sum(axis=0) / np.sqrt(len(states)),
    # Each token by its place, as for causal models (Muennighoff 2022).
    "weightedmean": lambda states: np.average(states, axis=0, weights=_places(states)),
    "lasttoken": lambda states: states[-1],
}
# The way older files say the same.
_SWITCHES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
# Older releases named the file of the limits after the model's architecture.
_KINDS = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
# Others change the vector after the pooling, with weights that the graph does not have.
_HARMLESS = ("Transformer", "Pooling", "Normalize")


def _places(states: Floats) -> Floats:
    return np.arange(1.0, len(states) + 1)


@dataclass(frozen=True)
class Pooling:
    """How a sentence is embedded.

    ``modes`` are pooled side by side, ``prompt`` goes before each text, and texts are cut to
    ``max_length`` tokens (None: the model's own limit).
    """

    modes: tuple[str, ...] = ("mean",)
    prompt: str = ""
    max_length: int | None = None
    lower_case: bool = False

    def pool(self, states: npt.NDArray[np.float32]) -> Floats:
        """Return the vector of a sentence from its tokens', (tokens, width), padding left out."""
        wide = states.astype(np.float64)
        return np.concatenate([_MODES[mode](wide) for mode in self.modes])


def read_pooling(directory: Path) -> Pooling | None:
    """Read how a checkpoint embeds sentences; None without sentence-transformers' files.

    Raises:
        CheckpointError: a file is damaged.
        EvaluationError: the files name a step that the ONNX half does not have.
    """
    listing, settings = directory / "modules.json", "config_sentence_transformers.json"
    if not listing.is_file():
        return None
    modules = _modules(listing)
    if "Pooling" not in modules or not set(modules) <= set(_HARMLESS):
        raise EvaluationError(
            f"{listing}: names the modules {', '.join(modules)}, and sts embeds with no others "
            f"than {', '.join(_HARMLESS)}"
        )
    inside = directory / modules.get("Transformer", "")
    found = (read_object(inside / f"sentence_{kind}_config.json") for kind in _KINDS)
    limits = next((one for one in found if one is not None), {})
    pooling = directory / modules["Pooling"] / CONFIG
    modes, with_prompt = _modes(pooling)
    further = read_object(directory / settings) or {}
    prompts, chosen = further.get("prompts"), further.get("default_prompt_name")
    prompt = prompts.get(chosen, "") if isinstance(prompts, dict) else ""
    if not isinstance(prompt, str):
        raise EvaluationError(f"{directory / settings}: its prompt {chosen} is not a text")
    if prompt and not with_prompt:
        raise EvaluationError(f"{pooling}: pools without the prompt, which sts does not")
    longest = length_or_none(limits.get("max_seq_length"))
    return Pooling(modes, prompt, longest, bool(limits.get("do_lower_case", False)))


def _modules(path: Path) -> dict[str, str]:
    """Return the folder of each module by its kind, below the folder of ``modules.json``."""
    found = {}
    try:
        listed = parse_json(path.read_bytes())
    except ValueError as error:
        raise EvaluationError(f"{path}: not valid JSON ({error})") from error
    for module in listed if isinstance(listed, list) else [None]:
        match module:
            case {"type": str(kind), "path": str(folder)} if ".." not in folder.split("/"):
                found[kind.rpartition(".")[2]] = folder.lstrip("/")
            case _:
                raise EvaluationError(
                    f"{path}: is not a list of modules with a type and a path in this folder each; "
                    "take the one that sentence-transformers saved with the model"
                )
    return found


def _modes(path: Path) -> tuple[tuple[str, ...], bool]:
    """Return how the tokens are pooled, and whether those of a prompt are too."""
    config = read_object(path)
    if config is None:
        raise EvaluationError(f"{path}: no such file, and modules.json names it; put it there")
    named = config.get("pooling_mode") or [m for s, m in _SWITCHES.items() if config.get(s)]
    modes = tuple(named or ["mean"]) if isinstance(named, list) else (named,)
    if unknown := [mode for mode in modes if not isinstance(mode, str) or mode not in _MODES]:
        raise EvaluationError(f"{path}: pools by {unknown[0]}; known are {', '.join(_MODES)}")
    return modes, bool(config.get("include_prompt", True))
