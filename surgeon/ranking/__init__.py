"""Which dimensions a model depends on: a module per method, one ``Ranking``."""

from __future__ import annotations

from surgeon.ranking.agreement import Agreement, compare_detectors
from surgeon.ranking.detectors import (
    DEFAULT,
    DETECTORS,
    MEASURED,
    check_options,
    find_detector,
    rank_dimensions,
)
from surgeon.ranking.layernorm import distances, rank_by_layernorm
from surgeon.ranking.ranking import ByLayer, Detector, Dimension, Measured, Options, Ranking
from surgeon.ranking.zscores import ZScores, read_zscores

__all__ = [
    "DEFAULT",
    "DETECTORS",
    "MEASURED",
    "Agreement",
    "ByLayer",
    "Detector",
    "Dimension",
    "Measured",
    "Options",
    "Ranking",
    "ZScores",
    "check_options",
    "compare_detectors",
    "distances",
    "find_detector",
    "rank_by_layernorm",
    "rank_dimensions",
    "read_zscores",
]
