"""What an artifact says about its own weights, whose names may be a person's own."""

from __future__ import annotations

from pathlib import Path

from surgeon.checkpoint.json_object import is_file_name, parse_object
from surgeon.errors import CheckpointError

FOLDER = "surgeon"
"""The folder inside an artifact that holds all that surgeon adds for itself."""

RECORD = f"{FOLDER}/record.json"
"""The file that makes a directory an artifact."""


def is_artifact(directory: Path) -> bool:
    """Whether surgeon made the directory."""
    return (directory / RECORD).is_file()


def recorded_weights(directory: Path) -> tuple[str, ...]:
    """Return the names of an artifact's weight files, none for a directory that is no artifact.

    Raises:
        CheckpointError: the record is damaged or names a file elsewhere, or the artifact was made
            from an ONNX file.
    """
    path = directory / RECORD
    if not path.is_file():
        return ()
    record = parse_object(str(path), path.read_bytes())
    if record.get("onnx_patch") is not None:
        raise CheckpointError(
            f"{directory}: was made from an ONNX file; give that file in it, as MODEL.onnx"
        )
    names = record.get("weights")
    if not isinstance(names, list) or not all(map(is_file_name, names)):
        raise CheckpointError(f"{path}: its weights are not the names of files; it is damaged")
    return tuple(names)
