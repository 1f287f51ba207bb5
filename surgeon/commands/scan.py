"""``surgeon scan``: the ranking, as a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import surgeon
from surgeon import console
from surgeon.commands.options import (
    ONNX_FILE,
    Device,
    Force,
    Json,
    MinDamage,
    MinLayers,
    Plot,
    RankingData,
    Revision,
    Sigma,
    SitesPattern,
    TextColumn,
    WeightsOrOnnx,
    check_files,
    is_onnx,
    ranking_texts,
    refuse_options,
    setting,
    settling,
)
from surgeon.edit.recipe import Recipe
from surgeon.errors import SelectionError
from surgeon.ranking import DEFAULT, Options, check_options, estimate_seconds, find_detector
from surgeon.ranking.ranking import SIGMA

if TYPE_CHECKING:
    from surgeon.model import Checkpoint

_TOP = 10


def scan(
    model: WeightsOrOnnx,
    revision: Revision = None,
    sites_pattern: SitesPattern = None,
    method: Annotated[
        str | None, setting(Recipe, "method", metavar="NAME", show_default="layernorm")
    ] = None,
    data: RankingData = None,
    text_column: TextColumn = None,
    device: Device = "auto",
    sigma: Sigma = SIGMA,
    min_layers: MinLayers = None,
    min_damage: MinDamage = None,
    exhaustive: Annotated[
        bool,
        typer.Option(
            "--exhaustive", help="For ablation: remove every dimension, not only a shortlist."
        ),
    ] = False,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare",
            help="Rank by every method, and measure what removing each one's first two does.",
        ),
    ] = False,
    plot: Plot = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="FILE.csv or FILE.parquet: a row for each dimension, with its z-scores.",
        ),
    ] = None,
    force: Force = False,
    top: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="How many dimensions the table shows; outliers it shows all."
        ),
    ] = _TOP,
    json: Json = False,
) -> None:
    """Rank the dimensions of MODEL.

    Without --method, an instant look at the weights by the paper's criterion: a dimension is an
    outlier if its gain and its bias each lie more than SIGMA standard deviations from their mean
    in at least half of the layers. That is not measured; --method ablation measures what removing
    a dimension does. Of a model on the Hub that is not in the cache, the methods on the weights
    read only headers and norms.
    """
    detector = find_detector(method or DEFAULT)
    if compare and method is not None:
        raise SelectionError("--compare: runs every method; leave out --method")
    if compare and output is not None:
        raise SelectionError("-o: is the table of one ranking; leave out --compare")
    if compare and top != _TOP:
        raise SelectionError("--top: is for the table of one ranking; leave out --compare")
    check_files(output, plot, force=force)
    if output is not None:
        console.check_ranking_table(output, force=force)
    with console.shown_progress() as progress:
        options = Options(
            sigma=sigma,
            min_layers=min_layers,
            texts=ranking_texts(data, text_column),
            min_damage=min_damage,
            exhaustive=exhaustive,
            device=device,
        )
        if not compare:
            check_options(detector, options)
        checkpoint: Checkpoint
        if is_onnx(model):
            measured = method if detector.needs_model else None
            refuse_options(
                ONNX_FILE.format(model), revision=revision, method=measured, compare=compare
            )
            checkpoint = surgeon.open_onnx(Path(model), sites_pattern).checkpoint
        else:
            runs_model = compare or detector.needs_model
            opened = surgeon.open_checkpoint if runs_model else surgeon.open_for_scan
            checkpoint = opened(
                model, revision=revision, sites_pattern=sites_pattern, progress=progress
            )
        if compare:
            agreement = surgeon.compare_detectors(checkpoint, options, progress=progress)
        else:
            ranking = surgeon.rank_dimensions(checkpoint, detector.name, options, progress=progress)
    if compare:
        console.show_agreement(agreement, json=json)
        if plot is not None:
            surgeon.plot_agreement(agreement, plot)
            console.print_note(f"Picture: {plot}")
        return
    zscores = ranking.zscores
    if zscores is None and (json or plot is not None or output is not None):
        zscores = surgeon.read_zscores(checkpoint)
    settle = settling("scan", model, revision, sites_pattern) if checkpoint.can_run else None
    seconds = estimate_seconds(checkpoint)
    console.show_ranking(ranking, top, json=json, settle=settle, seconds=seconds, zscores=zscores)
    if plot is not None and zscores is not None:
        surgeon.plot_ranking(ranking, zscores, plot)
        console.print_note(f"Picture: {plot}")
    if output is not None and zscores is not None:
        console.write_ranking_table(ranking, zscores, output, force=force)
        console.print_note(f"Written: {output}")
    if checkpoint.meter is not None:
        of = checkpoint.conversion
        commit = f"{of} ({checkpoint.revision}), the conversion of its pickle" if of else None
        console.print_note(
            f"Read {checkpoint.meter.received:,} bytes of {checkpoint.name} at "
            f"{commit or checkpoint.revision}, by range requests."
        )
