"""``surgeon sweep``: a grid of operations, a row of results for each."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Literal

import typer

from surgeon import console
from surgeon.commands.options import Address, Cpus, EngineName, Json
from surgeon.errors import CheckFailed, Interrupted, OutputError

_MANY = 100_000  # cells, beyond which people wonder whether anything happens
_EACH = 6e-5  # seconds to lay out one


def sweep(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A grid, as YAML; docs/sweep.md has one.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Where the rows go; a sweep that is there already is resumed.",
        ),
    ] = None,
    engine: EngineName = "local",
    workers: Annotated[int, typer.Option(metavar="N", help="Cells that run at once.")] = 1,
    address: Address = None,
    cpus: Cpus = 1,
    gpus: Annotated[float, typer.Option(help="GPUs that a worker declares to Ray.")] = 0,
    provider: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="Where onnxruntime runs.")
    ] = "auto",
    retry: Annotated[bool, typer.Option("--retry", help="Run cells that failed again.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the grid and what it costs; run nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Measure a grid of operations: a row of results for each cell.

    Every model x selection x operation x layers x task x seed is a cell. Its row is in rows.jsonl
    as soon as it is done, with the recipe that reproduces it. A sweep that was killed resumes
    where it stopped; a cell that fails costs only its own row.
    """
    from surgeon.evaluation.session import check_provider
    from surgeon.progress import duration
    from surgeon.study.engines import choose_engine
    from surgeon.study.grid import check_grid, effort_of, make_cells, name_missing_models, size_of
    from surgeon.study.sweep import preview_sweep, run_sweep

    checked = check_grid(file)
    grid = checked.content
    if grid is None:
        console.show_problems(checked.path, checked.problems)
        raise typer.Exit(OutputError.exit_code)
    if (size := size_of(grid)) > _MANY:
        console.print_note(f"{size:,} cells: to lay them out takes about {duration(size * _EACH)}.")
    chosen = choose_engine(engine, workers, address, cpus, gpus)
    if dry_run:
        cells = make_cells(grid)
        ahead = preview_sweep(cells, output, retry=retry, workers=workers)
        console.show_grid(cells, effort_of(cells), ahead, json=json)
        for doubt in name_missing_models(grid):
            console.print_note(f"Note: {doubt}.")
        return
    if output is None:
        raise OutputError("-o DIR: name the folder of the results, or look first with --dry-run")
    if address is None:  # the nodes of a cluster may have what this machine has not
        check_provider(provider)
    # The nodes of a cluster need not share the folder of the results.
    models = Path(tempfile.gettempdir()) / "surgeon-sweep" if address else None
    try:
        with console.shown_progress() as progress:
            done = run_sweep(
                grid,
                output,
                engine=chosen,
                provider=provider,
                retry=retry,
                models=models,
                progress=progress,
            )
    except KeyboardInterrupt as error:
        kept = f"its rows so far are in {output}" if output.exists() else "it has no row yet"
        raise Interrupted(
            f"interrupted; {kept}, and the same command goes on from there"
        ) from error
    console.show_sweep(done, json=json)
    if done.failed:
        raise CheckFailed(
            f"{done.failed} of {done.total} cells failed; their rows in {output} say why, and "
            "--retry runs them again"
        )
