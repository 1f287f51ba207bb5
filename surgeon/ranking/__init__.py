"""Which dimensions a model depends on: a module per method, one ``Ranking``."""

from __future__ import annotations

from surgeon.ranking.detectors import DEFAULT as DEFAULT
from surgeon.ranking.detectors import DETECTORS as DETECTORS
from surgeon.ranking.detectors import MEASURED as MEASURED
from surgeon.ranking.detectors import check_options as check_options
from surgeon.ranking.detectors import estimate_seconds as estimate_seconds
from surgeon.ranking.detectors import find_detector as find_detector
from surgeon.ranking.detectors import rank_dimensions as rank_dimensions
from surgeon.ranking.layernorm import distances as distances
from surgeon.ranking.layernorm import rank_by_layernorm as rank_by_layernorm
from surgeon.ranking.ranking import ByLayer as ByLayer
from surgeon.ranking.ranking import Dimension as Dimension
from surgeon.ranking.ranking import Measured as Measured
from surgeon.ranking.ranking import Options as Options
from surgeon.ranking.ranking import Ranking as Ranking
from surgeon.ranking.zscores import ZScores as ZScores
from surgeon.ranking.zscores import read_zscores as read_zscores
