"""The detectors: one row each, chosen by name, whose module is imported when it is used."""

from __future__ import annotations

import dataclasses
import importlib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from surgeon.errors import SelectionError
from surgeon.model import Checkpoint
from surgeon.progress import Progress, silent
from surgeon.ranking.ranking import Options, Ranking
from surgeon.text import GivenTexts
from surgeon.torch_model.live import left_as_it_was, open_live


@dataclass(frozen=True)
class Detector:
    """A way to rank dimensions.

    ``function`` is the module in this package and the function in it that ranks. It takes a
    checkpoint and, by name, the options in ``takes``. Where it ``needs_model``, it takes what runs
    the model in PyTorch (``TorchRunner``), all ``Options`` and a ``Progress`` instead.
    """

    name: str
    function: str
    needs_model: bool
    summary: str
    source: str
    takes: tuple[str, ...]

    @property
    def rank(self) -> Callable[..., Ranking]:
        """The function, imported now: those that run a model bring much that others do without."""
        module, _, name = self.function.partition(".")
        found: Callable[..., Ranking]
        found = getattr(importlib.import_module(f"surgeon.ranking.{module}"), name)
        return found


_ROWS = (
    Detector(
        "layernorm",
        "layernorm.rank_by_layernorm",
        needs_model=False,
        summary="gain and bias both far from their mean, in half of the layers",
        source="Kovaleva et al. 2021, arXiv 2105.06990",
        takes=("sigma", "min_layers"),
    ),
    Detector(
        "layernorm-count",
        "layernorm.rank_by_count",
        needs_model=False,
        summary="gain or bias far from their mean, in more than a quarter of the layers",
        source="Puccetti et al. 2022, arXiv 2205.11380",
        takes=("sigma", "min_layers"),
    ),
    Detector(
        "activations",
        "activations.rank_by_activations",
        needs_model=True,
        summary="size of what the layers write, against the median dimension",
        source="He et al. 2024, arXiv 2405.19279 (maximum to median)",
        takes=("texts", "device"),
    ),
    Detector(
        "gradient",
        "gradient.rank_by_gradient",
        needs_model=True,
        summary="the first-order effect of its removal on the model's own task",
        source="Molchanov et al. 2019, arXiv 1906.10771 (Taylor, first order)",
        takes=("texts", "device"),
    ),
    Detector(
        "ablation",
        "ablation.rank_by_ablation",
        needs_model=True,
        summary="the damage that removing it does to the model's own task",
        source="Kovaleva et al. 2021, arXiv 2105.06990",
        takes=("texts", "min_damage", "exhaustive", "count", "device"),
    ),
)
DETECTORS: dict[str, Detector] = {detector.name: detector for detector in _ROWS}
"""Detectors by the name that ``method`` takes."""

DEFAULT = "layernorm"
MEASURED = "ablation"

# BERT-medium, with 8, is the smallest model for which the paper names a dimension.
_FEW_LAYERS = 8
_EVERYWHERE = "seed"

_IN_LAYER = re.compile(r"\.\d+\.")
_START_UP = 8.0  # seconds, for PyTorch and transformers
_TOKENS = 6_000  # that ablation reads of the sample, a removal of a text counted as a text
_FLOPS = 3e10  # a second, of two cores


def find_detector(method: str) -> Detector:
    """Return a detector by name.

    Raises:
        SelectionError: there is none of that name.
    """
    if method not in DETECTORS:
        raise SelectionError(f"`method` {method}: there is {', '.join(DETECTORS)}")
    return DETECTORS[method]


def rank_dimensions(
    checkpoint: Checkpoint,
    method: str = DEFAULT,
    options: Options | None = None,
    *,
    progress: Progress = silent,
) -> Ranking:
    """Rank a checkpoint's dimensions by a detector.

    Args:
        checkpoint: an open checkpoint of a known architecture.
        method: a name in ``DETECTORS``.
        options: its settings.
        progress: called at each step.

    Raises:
        SelectionError: there is no such method, or it does not take one of the options.
        ExportError: the model does not load or run in PyTorch.
        CheckpointError: a tensor holds values that are not finite.
        EvaluationError: it has no tokenizer, or the texts have nothing to score.
    """
    detector, options = find_detector(method), options or Options()
    check_options(detector, options)
    if not detector.needs_model:
        return rank_weights(detector, checkpoint, options)
    from surgeon.ranking.torch_runner import open_torch_runner

    runner = open_torch_runner(checkpoint, options.texts, progress, options.device)
    return detector.rank(runner, options, progress)


def rank_weights(detector: Detector, checkpoint: Checkpoint, options: Options) -> Ranking:
    """Rank by a detector that reads the weights alone, and say where these are weak evidence."""
    chosen = {name: getattr(options, name) for name in detector.takes}
    ranking = detector.rank(checkpoint, **chosen)
    return dataclasses.replace(ranking, weak=_why_weak(ranking))


def check_options(detector: Detector, options: Options) -> None:
    """Refuse a setting that a detector would ignore.

    Raises:
        SelectionError: one is set.
    """
    for name, value in options:
        taken = name in (_EVERYWHERE, *detector.takes)
        if not taken and value != Options.model_fields[name].default:
            takers = [d.name for d in DETECTORS.values() if name in d.takes]
            raise SelectionError(
                f"`{name}`: `method` {detector.name} has no use for it; it is for "
                f"{', '.join(takers)}"
            )


def _why_weak(ranking: Ranking) -> str | None:
    """Say why the weights alone are weak evidence for this model, if they are."""
    if not ranking.outliers:
        return "no dimension meets the criterion, and weights alone are weak evidence"
    if ranking.layers < _FEW_LAYERS:
        return f"the weights of {ranking.layers} layers alone are weak evidence"
    return None


def estimate_seconds(checkpoint: Checkpoint) -> float:
    """Return how long ``ablation`` takes on two cores, about: two passes over the sample."""
    shapes = [info.shape for name, info in checkpoint.tensors.items() if _IN_LAYER.search(name)]
    weights = sum(math.prod(shape) for shape in shapes if len(shape) > 1)
    return _START_UP + 2 * weights * _TOKENS / _FLOPS


def rank(
    model: Any,
    tokenizer: Any = None,
    texts: GivenTexts | None = None,
    *,
    method: str = MEASURED,
    sites_pattern: str | None = None,
    progress: Progress = silent,
    **settings: Any,
) -> Ranking:
    """Rank the dimensions of a transformers model in memory, as it is now.

        surgeon.rank(model, tokenizer, ["One text.", "Another."], method="activations")

    Args:
        model: a ``PreTrainedModel`` in PyTorch, on any device and in any dtype. Its weights,
            gradients and modes are afterwards as they were.
        tokenizer: transformers' for it, for the methods that run the model.
        texts: what ranks: strings, or a file with one text per line (None: English sentences).
        method: what ranks: ablation, activations, gradient, layernorm or layernorm-count.
        sites_pattern: as of ``open_checkpoint``.
        progress: called at each step.
        settings: any other field of ``Options``, such as ``min_damage=0.2``.

    Raises:
        SelectionError: there is no such method or setting, or the method does not take it.
        EvaluationError: the texts or the tokenizer do not suit the model.
        ExportError: the model does not run.
        CheckpointError: as ``open_live``, or a tensor holds values that are not finite.
    """
    find_detector(method)
    checkpoint = open_live(model, sites_pattern=sites_pattern, tokenizer=tokenizer)
    with left_as_it_was(checkpoint.model):
        options = Options(texts=texts, **settings)
        return rank_dimensions(checkpoint, method, options, progress=progress)
