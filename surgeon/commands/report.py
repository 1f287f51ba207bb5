"""``surgeon report``: one page about an artifact or a sweep, to look at and to pass on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from surgeon.commands.options import Force
from surgeon.errors import OutputError


def report(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="An artifact that was evaluated, or a sweep's results."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The HTML file to make.")
    ],
    force: Force = False,
) -> None:
    """Make one HTML page of an evaluated artifact or of a sweep. It loads nothing.

    The page of an artifact holds the verdict, the scores among random removals, the edit, and
    where the dims lie among all by the weights; that of a sweep every figure that its grid makes
    (doses, one dimension or one layer at a time) with random removals as a band.
    """
    from surgeon import console, write_report, write_sweep_report
    from surgeon.model.files import RECORD
    from surgeon.study.sweep_folder import ROWS, is_sweep

    if not is_sweep(folder) and not (folder / RECORD).is_file():
        raise OutputError(
            f"{folder}: is neither an artifact (which has {RECORD}) nor the results of a sweep "
            f"(which have {ROWS}); name the folder of one"
        )
    with console.shown_progress() as progress:
        write = write_sweep_report if is_sweep(folder) else write_report
        write(folder, output, force=force, progress=progress)
    console.print_note(f"Report: {output}")
