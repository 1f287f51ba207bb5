"""``surgeon trace``: the norms over the checkpoints of a training run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import surgeon
from surgeon import console
from surgeon.commands.options import Force, HalfOfLayers, Json, Sigma, WeightsPattern, check_files
from surgeon.harmless import listed
from surgeon.ranking.layernorm import MIN_LAYERS
from surgeon.ranking.ranking import SIGMA


def trace(
    checkpoints: Annotated[
        list[str],
        typer.Argument(
            metavar="CHECKPOINT",
            help="Two or more model directories, the folder that holds them, or one Hub id.",
        ),
    ],
    revisions: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN",
            help="For a Hub id: the branches and tags to read, as a glob such as 'step*'.",
        ),
    ] = None,
    skip: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Names to leave out, as a glob such as checkpoint-best; may be given again.",
        ),
    ] = None,
    sigma: Sigma = SIGMA,
    min_layers: HalfOfLayers = MIN_LAYERS,
    sites_pattern: WeightsPattern = None,
    top: Annotated[
        int, typer.Option(min=1, metavar="N", help="How many dimensions the table shows.")
    ] = 10,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Draw the norms over the steps: FILE.png, .svg, .pdf or .html. An earlier picture "
            "there is replaced, and any other file kept, as FILE.replaced.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="FILE.parquet: gain and bias z of each step, layer and dimension; FILE.json: what "
            "--json prints.",
        ),
    ] = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Show when dimensions became outliers in a training run.

    Reads the gains and biases of each checkpoint and judges them by the paper's criterion, as scan
    does. The step is the number after step, checkpoint, iter or epoch in a checkpoint's name, such
    as 900k, or the only number in it. A dimension became an outlier at the first checkpoint from
    which on every one flags it. Of a model on the Hub, only headers and the last operation of each
    layer are read, and revisions with the same weights are left out and listed. A trace that was
    stopped resumes.
    """
    check_files(output, plot, force=force)
    with console.shown_progress() as progress:
        traced = surgeon.trace_training(
            checkpoints,
            revisions=revisions,
            skip=skip or (),
            sigma=sigma,
            min_layers=min_layers,
            sites_pattern=sites_pattern,
            top=top,
            output=output,
            force=force,
            progress=progress,
        )
    console.show_trace(traced, top, json=json)
    if plot is not None:
        surgeon.plot_trace(traced, plot)
        console.print_note(f"Picture: {plot}")
    if output is not None:
        console.print_note(f"Written: {output}")
    if traced.repeats:
        same = (f"{repeat.step} as {repeat.same_as}" for repeat in traced.repeats)
        console.print_note(
            f"{len(traced.repeats)} steps have the same weights on the Hub as a later one, and are "
            f"left out: {listed(same, 12)}"
        )
    if traced.bytes_read is not None:
        console.print_note(f"Read {traced.bytes_read:,} bytes of {traced.name}, by range requests.")
