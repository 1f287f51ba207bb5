"""``surgeon scan``: the ranking, as a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from surgeon.commands.options import Json, MinLayers, Model, Revision, Sigma, SitesPattern
from surgeon.outliers.layernorm import MIN_LAYERS, SIGMA

if TYPE_CHECKING:
    from surgeon.checkpoint import Checkpoint


def scan(
    model: Model,
    revision: Revision = None,
    sites_pattern: SitesPattern = None,
    sigma: Sigma = SIGMA,
    min_layers: MinLayers = MIN_LAYERS,
    top: Annotated[int, typer.Option(min=1, help="How many dimensions the table shows.")] = 10,
    json: Json = False,
) -> None:
    """Rank the dimensions of MODEL by the paper's criterion.

    A dimension is an outlier if its gain and its bias each lie more than SIGMA standard
    deviations from their mean in at least MIN_LAYERS layers. Weights alone are weak evidence:
    surgeon eval tells what a dimension does. Of a model on the Hub that is not in the cache, only
    headers and norms are read.
    """
    from surgeon import console, open_for_scan, open_onnx, rank_by_layernorm

    with console.shown_progress() as progress:
        checkpoint: Checkpoint = (
            open_onnx(Path(model), sites_pattern)
            if Path(model).suffix == ".onnx"
            else open_for_scan(
                model, revision=revision, sites_pattern=sites_pattern, progress=progress
            )
        )
        ranking = rank_by_layernorm(checkpoint, sigma=sigma, min_layers=min_layers)
    console.show_ranking(ranking, top, json=json)
    if checkpoint.remote is not None:
        console.print_note(
            f"Read {checkpoint.remote.bytes_read:,} bytes of {checkpoint.name} at "
            f"{checkpoint.revision}, by range requests."
        )
