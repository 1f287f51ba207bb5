"""Which dimensions a model leans on: one module per detector, one ``Ranking``."""

from surgeon.outliers.layernorm import rank_by_layernorm
from surgeon.outliers.ranking import Dimension, Measured, Ranking
from surgeon.outliers.zscores import ZScores, read_zscores

DETECTORS = {"layernorm": rank_by_layernorm}
"""Detectors by the name that ``--method`` takes."""

__all__ = [
    "DETECTORS",
    "Dimension",
    "Measured",
    "Ranking",
    "ZScores",
    "rank_by_layernorm",
    "read_zscores",
]
