"""How token vectors become the vector of a sentence, as sentence-transformers' files name it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from surgeon.checkpoint.json_object import parse_json
from surgeon.errors import EvaluationError

Floats: TypeAlias = npt.NDArray[np.float64]

MODULES = "modules.json"


def _weighted_mean(states: Floats) -> Floats:
    """Weigh each token by its place, as for causal models (Muennighoff 2022)."""
    average: Floats = np.average(states, axis=0, weights=np.arange(1, len(states) + 1))
    return average


# Each maps the vectors of a sentence's tokens, (tokens, width), to one of them, (width,).
_MODES: Mapping[str, Callable[[Floats], Floats]] = {
    "cls": lambda states: states[0],
    "max": lambda states: states.max(axis=0),
    "mean": lambda states: states.mean(axis=0),
    "mean_sqrt_len_tokens": lambda states: states.sum(axis=0) / np.sqrt(len(states)),
    "weightedmean": _weighted_mean,
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
# Others change the vector after the pooling, with weights that the graph does not have.
_HARMLESS = ("Transformer", "Pooling", "Normalize")


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


def read_pooling(directory: Path) -> Pooling:
    """Read how a checkpoint embeds sentences; without sentence-transformers' files, by the mean.

    Raises:
        EvaluationError: the files are damaged, or name a step that the ONNX half does not have.
    """
    if not (directory / MODULES).is_file():
        return Pooling()
    modules = {str(m["type"]).rsplit(".", 1)[-1]: str(m["path"]) for m in _json(directory, MODULES)}
    other = [kind for kind in modules if kind not in _HARMLESS]
    if other or "Pooling" not in modules:
        raise EvaluationError(
            f"{directory / MODULES}: names the modules {', '.join(modules)}, and sts embeds with "
            f"{', '.join(_HARMLESS)} alone"
        )
    name = f"{modules['Pooling']}/config.json"
    config = _json(directory, name)
    named = config.get("pooling_mode") or [m for s, m in _SWITCHES.items() if config.get(s)]
    modes = (named,) if isinstance(named, str) else tuple(named) or ("mean",)
    if unknown := [mode for mode in modes if mode not in _MODES]:
        raise EvaluationError(
            f"{directory / name}: pools by {unknown[0]}; known are {', '.join(_MODES)}"
        )
    inside = modules.get("Transformer", "")
    limits = _json(directory, f"{inside}/sentence_bert_config.json".lstrip("/"), optional=True)
    further = _json(directory, "config_sentence_transformers.json", optional=True)
    prompt = (further.get("prompts") or {}).get(further.get("default_prompt_name"), "")
    if prompt and not config.get("include_prompt", True):
        raise EvaluationError(f"{directory / name}: pools without the prompt, which sts does not")
    return Pooling(
        modes, prompt, limits.get("max_seq_length"), bool(limits.get("do_lower_case", False))
    )


def _json(directory: Path, name: str, *, optional: bool = False) -> Any:
    path = directory / name
    if optional and not path.is_file():
        return {}
    try:
        return parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{path}: cannot be read ({error})") from error
