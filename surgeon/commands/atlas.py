"""``surgeon atlas``: the scan of many models on the Hub, as one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from surgeon import console
from surgeon.commands.options import Address, Cpus, EngineName, HalfOfLayers, Json, Sigma
from surgeon.errors import CheckFailed, OutputError
from surgeon.ranking.layernorm import MIN_LAYERS
from surgeon.ranking.ranking import SIGMA


def atlas(
    models: Annotated[
        Path,
        typer.Argument(
            metavar="LIST", help="A file with a Hub id per line, or ID@REVISION; # comments."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The table, as Parquet; an atlas that is there already is resumed.",
        ),
    ] = None,
    sigma: Sigma = SIGMA,
    min_layers: HalfOfLayers = MIN_LAYERS,
    max_mb: Annotated[
        float,
        typer.Option(
            "--max-mb",
            metavar="MB",
            help="What the vectors of one model may have; GPT-2's are whole dense layers.",
        ),
    ] = 500,
    rate: Annotated[
        float,
        typer.Option(metavar="N", help="Models started per second at most, over all workers."),
    ] = 1.5,
    workers: Annotated[int, typer.Option(metavar="N", help="Models scanned at once.")] = 4,
    engine: EngineName = "local",
    address: Address = None,
    cpus: Cpus = 1,
    retry: Annotated[bool, typer.Option("--retry", help="Try models that failed again.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show how much there is to do; send no requests.")
    ] = False,
    json: Json = False,
) -> None:
    """Map the outlier dimensions of many models on the Hub.

    Ranks each model as surgeon scan does, and reads only its norms, by range requests: a row per
    model and dimension. An atlas that was killed resumes where it stopped; a model that fails costs
    one row, with its reason, and the exit code is 0 as long as one was scanned. Waits that the Hub
    asks for are observed; if it cannot be reached, the run stops, and those models have no row.
    """
    from surgeon.study.atlas import build_atlas, preview_atlas
    from surgeon.study.engines import choose_engine
    from surgeon.study.targets import read_list

    targets, chosen = read_list(models), choose_engine(engine, workers, address, cpus)
    if dry_run:
        ahead = preview_atlas(
            targets, output, sigma=sigma, min_layers=min_layers, rate=rate, retry=retry
        )
        console.show_outlook(ahead, len(targets), json=json)
        return
    if output is None:
        raise OutputError("-o FILE: name the table, or look first with --dry-run")
    with console.shown_progress() as progress:
        built = build_atlas(
            targets,
            output,
            engine=chosen,
            sigma=sigma,
            min_layers=min_layers,
            max_bytes=max_mb * 1e6,
            rate=rate,
            retry=retry,
            progress=progress,
        )
    console.show_atlas(built, json=json)
    if not built.done:
        raise CheckFailed(
            f"every one of {built.total} models failed; their rows say why, and "
            "--retry tries them again"
        )
