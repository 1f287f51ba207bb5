"""The detectors: one row each, chosen by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from surgeon.errors import SelectionError
from surgeon.model import Checkpoint
from surgeon.ranking.ablation import rank_by_ablation
from surgeon.ranking.activations import rank_by_activations
from surgeon.ranking.layernorm import MIN_LAYERS, rank_by_count, rank_by_layernorm
from surgeon.ranking.ranking import Options, Ranking

DEFAULT = "layernorm"
MEASURED = "ablation"

# BERT-medium, with 8, is the smallest model for which the paper names a dimension.
_FEW_LAYERS = 8


@dataclass(frozen=True)
class Detector:
    """A way to rank dimensions.

    ``needs_model`` tells whether it runs the model in PyTorch, on text; the others read a few
    tensors of the weights. ``takes`` are the options that it looks at.
    """

    name: str
    rank: Callable[[Checkpoint, Options], Ranking]
    needs_model: bool
    summary: str
    source: str
    takes: tuple[str, ...]


def _layernorm(checkpoint: Checkpoint, options: Options) -> Ranking:
    layers = MIN_LAYERS if options.min_layers is None else options.min_layers
    return rank_by_layernorm(checkpoint, sigma=options.sigma, min_layers=layers)


def _layernorm_count(checkpoint: Checkpoint, options: Options) -> Ranking:
    return rank_by_count(checkpoint, sigma=options.sigma, min_layers=options.min_layers)


DETECTORS: dict[str, Detector] = {
    detector.name: detector
    for detector in (
        Detector(
            "layernorm",
            _layernorm,
            needs_model=False,
            summary="gain and bias both far from their mean, in half of the layers",
            source="Kovaleva et al. 2021, arXiv 2105.06990",
            takes=("sigma", "min_layers"),
        ),
        Detector(
            "layernorm-count",
            _layernorm_count,
            needs_model=False,
            summary="gain or bias far from their mean, in more than a quarter of the layers",
            source="Puccetti et al. 2022, arXiv 2205.11380",
            takes=("sigma", "min_layers"),
        ),
        Detector(
            "activations",
            rank_by_activations,
            needs_model=True,
            summary="size of what the layers write, against the median dimension",
            source="He et al. 2024, arXiv 2405.19279 (maximum to median)",
            takes=("texts",),
        ),
        Detector(
            "ablation",
            rank_by_ablation,
            needs_model=True,
            summary="the damage that removing it does to the model's own task",
            source="Kovaleva et al. 2021, arXiv 2105.06990",
            takes=("texts", "min_damage", "exhaustive"),
        ),
    )
}
"""Detectors by the name that ``--method`` takes."""

_OPTION_NAMES = {"texts": "data"}
_EVERYWHERE = ("seed", "progress")


def find_detector(method: str) -> Detector:
    """Return a detector by name.

    Raises:
        SelectionError: there is none of that name.
    """
    if method not in DETECTORS:
        raise SelectionError(f"--method {method}: there is {', '.join(DETECTORS)}")
    return DETECTORS[method]


def rank_dimensions(
    checkpoint: Checkpoint, method: str = DEFAULT, options: Options | None = None
) -> Ranking:
    """Rank a checkpoint's dimensions by a detector.

    Args:
        checkpoint: an open checkpoint of a known architecture.
        method: a name in ``DETECTORS``.
        options: its settings.

    Raises:
        SelectionError: there is no such method, or it does not take one of the options.
        SurgeonError: what the detector raises.
    """
    detector, options = find_detector(method), options or Options()
    check_options(detector, options)
    ranking = detector.rank(checkpoint, options)
    return (
        ranking if detector.needs_model else dataclasses.replace(ranking, weak=_weakness(ranking))
    )


def options_for(detector: Detector, options: Options) -> Options:
    """Return the options with those that a detector does not take left at their defaults."""
    kept = {name: getattr(options, name) for name in (*_EVERYWHERE, *detector.takes)}
    return Options(**kept)


def check_options(detector: Detector, options: Options) -> None:
    """Refuse a setting that a detector would ignore.

    Raises:
        SelectionError: one is set.
    """
    for field in dataclasses.fields(Options):
        taken = field.name in _EVERYWHERE or field.name in detector.takes
        if not taken and getattr(options, field.name) != field.default:
            takers = [d.name for d in DETECTORS.values() if field.name in d.takes]
            option = _OPTION_NAMES.get(field.name, field.name).replace("_", "-")
            raise SelectionError(
                f"--{option}: --method {detector.name} has no use for it; it is for "
                f"{' and '.join(takers)}"
            )


def _weakness(ranking: Ranking) -> str | None:
    """Say why what the weights alone tell is weak evidence for this model, if it is."""
    if not ranking.outliers:
        return "no dimension meets the criterion, and weights alone are weak evidence"
    if ranking.layers < _FEW_LAYERS:
        return f"the weights of {ranking.layers} layers alone are weak evidence"
    return None
