"""Which dimensions a model depends on: a module per method, one ``Ranking``."""

from __future__ import annotations

from surgeon.ranking.detectors import (
    DEFAULT,
    DETECTORS,
    MEASURED,
    check_options,
    estimate_seconds,
    find_detector,
    rank_dimensions,
)
from surgeon.ranking.layernorm import distances, rank_by_layernorm
from surgeon.ranking.ranking import ByLayer, Dimension, Measured, Options, Ranking
from surgeon.ranking.zscores import ZScores, read_zscores

__all__ = [
    "DEFAULT",
    "DETECTORS",
    "MEASURED",
    "ByLayer",
    "Dimension",
    "Measured",
    "Options",
    "Ranking",
    "ZScores",
    "check_options",
    "distances",
    "estimate_seconds",
    "find_detector",
    "rank_by_layernorm",
    "rank_dimensions",
    "read_zscores",
]
