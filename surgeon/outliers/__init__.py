"""Which dimensions a model leans on: one module per detector, one ``Ranking``."""

from surgeon.outliers.layernorm import rank_by_layernorm
from surgeon.outliers.ranking import Dimension, Ranking

DETECTORS = {"layernorm": rank_by_layernorm}
"""Detectors by the name that ``--method`` takes."""

__all__ = ["DETECTORS", "Dimension", "Ranking", "rank_by_layernorm"]
