"""Rankings and z-scores to draw, of any size."""

from __future__ import annotations

import numpy as np

from surgeon.ranking import Dimension, Measured, Ranking, ZScores

_MEASURED = Measured(
    task="drift",
    metric="drift",
    unit="1 − cosine to the baseline",
    texts="built-in English sentences",
    sha256="0" * 64,
    examples=120,
    baseline=0.0,
    min_damage=0.02,
    control_range=(0.0, 0.006),
    error=0.05,
    removals=24,
    passes=8.0,
)


def random_ranking(
    *, hidden: int, layers: int = 6, outliers: tuple[int, ...] = (), bias=True, measured=False
) -> tuple[Ranking, ZScores]:
    """Make normal z-scores, those of the outliers at 8 to 20σ, and a ranking to match.

    If measured, an outlier does a damage of 0.4 and the first five others one of 0.004.
    """
    rng = np.random.default_rng(hidden)
    gains, biases = rng.normal(size=(2, layers, hidden)).clip(-2.9, 2.9)
    for dim in outliers:
        gains[:, dim], biases[:, dim] = rng.uniform(8, 20, (2, layers))
    zscores = ZScores(
        rows=tuple(map(str, range(layers))),
        gain=gains,
        bias=biases if bias else None,
        gain_name="gain",
        evidence="gain and bias of the output LayerNorm" if bias else "gain of the output RMSNorm",
    )
    others = (int(dim) for dim in rng.permutation(hidden) if dim not in outliers)
    order = [*outliers, *others]
    ranking = Ranking(
        model="random",
        architecture="BERT",
        layers=layers,
        hidden_size=hidden,
        method="layernorm",
        evidence=zscores.evidence,
        criterion="both beyond 3σ in at least half of the layers",
        dimensions=tuple(
            _dimension(dim, place, dim in outliers, layers, len(outliers), measured)
            for place, dim in enumerate(order)
        ),
        outliers=outliers,
        measured=_MEASURED if measured else None,
    )
    return ranking, zscores


def _dimension(dim, place, outlier, layers, found, measured) -> Dimension:
    damage = 0.4 if outlier else 0.004 if place < found + 5 else None
    return Dimension(
        dim=dim,
        score=float(outlier),
        strength=1.0 / (1 + place),
        layers=tuple(range(layers)) if outlier else (),
        damage=damage if measured else None,
        interval=(0.9 * damage, 1.1 * damage) if measured and damage else None,
    )
