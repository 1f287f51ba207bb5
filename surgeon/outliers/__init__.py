"""Which dimensions a model leans on: one module per detector, one ``Ranking``."""

from surgeon.outliers.agreement import Agreement, compare_detectors
from surgeon.outliers.detectors import (
    DEFAULT,
    DETECTORS,
    MEASURED,
    Detector,
    check_options,
    find_detector,
    rank_dimensions,
)
from surgeon.outliers.layernorm import distances, rank_by_layernorm
from surgeon.outliers.options import Options
from surgeon.outliers.ranking import ByLayer, Dimension, Measured, Ranking
from surgeon.outliers.zscores import ZScores, read_zscores

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
