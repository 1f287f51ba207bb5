"""What there is to do with an artifact: ``restore``, ``verify``, ``diff``, ``push``, ``report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import surgeon
from surgeon import console
from surgeon.commands.options import ArtifactDirectory, Force, Json, Output
from surgeon.errors import CheckFailed, OutputError


def restore(
    artifact: ArtifactDirectory, output: Output, force: Force = False, json: Json = False
) -> None:
    """Undo a patch, byte for byte.

    Gives back the source of ARTIFACT, every file checked against its recorded hash. A source
    that was a pickle comes back as safetensors with the same tensors.
    """
    with console.shown_progress() as progress:
        record = surgeon.restore(artifact, output, force=force, progress=progress)
    console.show_restored(record, output, json=json)


def verify(artifact: ArtifactDirectory, json: Json = False) -> None:
    """Check every hash, the edits and the ONNX half of ARTIFACT.

    Exits with 1 if a check fails.
    """
    with console.shown_progress() as progress:
        verification = surgeon.verify(artifact, progress=progress)
    console.show_verification(verification, json=json)
    if not verification.passed:
        failed = [check.name for check in verification.checks if not check.passed]
        count = f"{len(failed)} of {len(verification.checks)}"
        raise CheckFailed(f"{artifact}: {count} checks failed: {', '.join(failed[:3])}")


def diff(
    a: Annotated[
        str, typer.Argument(metavar="A", help="A model directory, weight file or Hub id.")
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one, in any shard layout.")],
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 1 if they differ.")
    ] = False,
    json: Json = False,
) -> None:
    """Show what differs between two checkpoints, tensor by tensor.

    Tensors are compared bit for bit and in pieces, so that memory does not grow with the models.
    """
    with console.shown_progress() as progress:
        one, other = (surgeon.open_checkpoint(model, progress=progress) for model in (a, b))
        comparison = surgeon.compare(one, other, progress=progress)
    console.show_comparison(comparison, json=json)
    if exit_code and not comparison.identical:
        raise CheckFailed(f"{a} and {b} differ")


def push(
    artifact: ArtifactDirectory,
    repository: Annotated[str, typer.Argument(metavar="ORG/NAME", help="The repository to fill.")],
    private: Annotated[
        bool, typer.Option("--private", help="Make the repository private, if it is new.")
    ] = False,
    unverified: Annotated[
        bool, typer.Option("--unverified", help="Push an artifact that was never evaluated.")
    ] = False,
    base_model: Annotated[
        str | None,
        typer.Option(
            metavar="ORG/NAME", help="What the card names as the base model, if not what it says."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Upload ARTIFACT with its card to the Hub.

    An artifact that was never evaluated is refused, and so is one whose files were changed.
    """
    with console.shown_progress() as progress:
        url = surgeon.push(
            artifact,
            repository,
            private=private,
            unverified=unverified,
            base_model=base_model,
            progress=progress,
        )
    console.show_pushed(artifact, url, json=json)


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
    from surgeon.model.files import RECORD
    from surgeon.study.sweep_folder import ROWS, is_sweep

    if not is_sweep(folder) and not (folder / RECORD).is_file():
        raise OutputError(
            f"{folder}: is neither an artifact (which has {RECORD}) nor the results of a sweep "
            f"(which have {ROWS}); name the folder of one"
        )
    with console.shown_progress() as progress:
        write = surgeon.write_sweep_report if is_sweep(folder) else surgeon.write_report
        write(folder, output, force=force, progress=progress)
    console.print_note(f"Report: {output}")
