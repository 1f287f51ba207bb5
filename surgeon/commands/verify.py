"""``surgeon verify``: is an artifact what its record says?"""

from __future__ import annotations

from surgeon.commands.options import ArtifactDirectory, Json
from surgeon.errors import CheckFailed


def verify(artifact: ArtifactDirectory, json: Json = False) -> None:
    """Check every hash, the edits and the ONNX half of ARTIFACT.

    Exits with 1 if a check fails.
    """
    from surgeon import console
    from surgeon import verify as run

    with console.shown_progress() as progress:
        verification = run(artifact, progress=progress)
    console.show_verification(verification, json=json)
    if not verification.passed:
        failed = [check.name for check in verification.checks if not check.passed]
        count = f"{len(failed)} of {len(verification.checks)}"
        raise CheckFailed(f"{artifact}: {count} checks failed: {', '.join(failed[:3])}")
