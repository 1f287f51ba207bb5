"""``surgeon restore``: undo, byte for byte."""

from __future__ import annotations

from surgeon.commands.options import ArtifactDirectory, Force, Json, Output


def restore(
    artifact: ArtifactDirectory, output: Output, force: Force = False, json: Json = False
) -> None:
    """Undo a patch, byte for byte.

    Gives back the source of ARTIFACT, every file checked against its recorded hash. A source
    that was a pickle comes back as safetensors with the same tensors.
    """
    from surgeon import console
    from surgeon import restore as run

    with console.shown_progress() as progress:
        record = run(artifact, output, force=force, progress=progress)
    console.show_restored(record, output, json=json)
