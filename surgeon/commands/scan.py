"""``surgeon scan``: the ranking, as a table."""

from __future__ import annotations

from typing import Annotated

import typer

from surgeon.commands.options import Json, MinLayers, Model, Sigma
from surgeon.outliers.layernorm import MIN_LAYERS, SIGMA


def scan(
    model: Model,
    sigma: Sigma = SIGMA,
    min_layers: MinLayers = MIN_LAYERS,
    top: Annotated[int, typer.Option(min=1, help="How many dimensions the table shows.")] = 10,
    json: Json = False,
) -> None:
    """Rank the dimensions of MODEL by the paper's criterion.

    A dimension is an outlier if its gain and its bias each lie more than SIGMA standard
    deviations from their mean in at least MIN_LAYERS layers. Weights alone are weak evidence:
    surgeon eval tells what a dimension does.
    """
    from surgeon import console, open_checkpoint, rank_by_layernorm

    ranking = rank_by_layernorm(open_checkpoint(model), sigma=sigma, min_layers=min_layers)
    console.show_ranking(ranking, top, json=json)
