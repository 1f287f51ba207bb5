"""``surgeon push``: share an artifact on the Hub."""

from __future__ import annotations

from typing import Annotated

import typer

from surgeon.commands.options import ArtifactDirectory, Json


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
    from surgeon import console
    from surgeon import push as run

    with console.shown_progress() as progress:
        url = run(
            artifact,
            repository,
            private=private,
            unverified=unverified,
            base_model=base_model,
            progress=progress,
        )
    console.show_pushed(artifact, url, json=json)
