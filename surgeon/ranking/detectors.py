"""The detectors: one row each, chosen by name."""

from __future__ import annotations

import dataclasses

from surgeon.errors import SelectionError
from surgeon.model import Checkpoint
from surgeon.progress import Progress, silent
from surgeon.ranking.ablation import ABLATION
from surgeon.ranking.activations import ACTIVATIONS
from surgeon.ranking.gradient import GRADIENT
from surgeon.ranking.layernorm import LAYERNORM, LAYERNORM_COUNT
from surgeon.ranking.ranking import Detector, Options, Ranking

DETECTORS: dict[str, Detector] = {
    detector.name: detector
    for detector in (LAYERNORM, LAYERNORM_COUNT, ACTIVATIONS, GRADIENT, ABLATION)
}
"""Detectors by the name that ``method`` takes."""

DEFAULT = LAYERNORM.name
MEASURED = ABLATION.name

# BERT-medium, with 8, is the smallest model for which the paper names a dimension.
_FEW_LAYERS = 8
_EVERYWHERE = "seed"


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
        SurgeonError: what the detector raises.
    """
    detector, options = find_detector(method), options or Options()
    check_options(detector, options)
    ranking = detector.rank(checkpoint, options, progress)
    if detector.needs_model:
        return ranking
    return dataclasses.replace(ranking, weak=_why_weak(ranking))


def options_for(detector: Detector, options: Options) -> Options:
    """Return the options with those that a detector does not take left at their defaults."""
    return Options(**{name: getattr(options, name) for name in (_EVERYWHERE, *detector.takes)})


def check_options(detector: Detector, options: Options) -> None:
    """Refuse a setting that a detector would ignore.

    Raises:
        SelectionError: one is set.
    """
    for field in dataclasses.fields(Options):
        taken = field.name in (_EVERYWHERE, *detector.takes)
        if not taken and getattr(options, field.name) != field.default:
            takers = [d.name for d in DETECTORS.values() if field.name in d.takes]
            raise SelectionError(
                f"`{field.name}`: `method` {detector.name} has no use for it; it is for "
                f"{' and '.join(takers)}"
            )


def _why_weak(ranking: Ranking) -> str | None:
    """Say why the weights alone are weak evidence for this model, if they are."""
    if not ranking.outliers:
        return "no dimension meets the criterion, and weights alone are weak evidence"
    if ranking.layers < _FEW_LAYERS:
        return f"the weights of {ranking.layers} layers alone are weak evidence"
    return None
