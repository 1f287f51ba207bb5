"""``surgeon report``: one page about an artifact, to look at and to pass on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from surgeon.commands.options import ArtifactDirectory, Force


def report(
    artifact: ArtifactDirectory,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The HTML file to make.")
    ],
    force: Force = False,
) -> None:
    """Make one HTML page of an artifact that was evaluated.

    The page holds the verdict, the scores among random removals, the edit, and where the dims lie
    among all by the weights. It loads nothing.
    """
    from surgeon import console, write_report

    with console.shown_progress() as progress:
        progress("drawing", 0, 0)
        write_report(artifact, output, force=force)
    console.print_note(f"Report: {output}")
