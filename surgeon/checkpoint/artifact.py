"""What an artifact says about its own weights, whose names may be a person's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from surgeon.checkpoint.json_object import is_file_name, read_object
from surgeon.errors import CheckpointError

FOLDER = "surgeon"
"""The folder inside an artifact that holds all that surgeon adds for itself."""

RECORD = f"{FOLDER}/record.json"
"""The file that makes a directory an artifact."""


def is_artifact(directory: Path) -> bool:
    """Whether surgeon made the directory."""
    return (directory / RECORD).is_file()


def recorded_pattern(directory: Path) -> str | None:
    """Return the ``--sites-pattern`` that an artifact was made with, None for none."""
    pattern = _read(directory).get("sites_pattern")
    return pattern if isinstance(pattern, str) else None


def recorded_weights(directory: Path) -> tuple[str, ...]:
    """Return the names of an artifact's weight files, none for a directory that is no artifact.

    Raises:
        CheckpointError: the record is damaged or names a file elsewhere, or the artifact was made
            from an ONNX file.
    """
    record = _read(directory)
    if not record:
        return ()
    if record.get("onnx_patch") is not None:
        raise CheckpointError(
            f"{directory}: was made from an ONNX file; give that file in it, as MODEL.onnx"
        )
    names = record.get("weights")
    if not isinstance(names, list) or not all(map(is_file_name, names)):
        raise CheckpointError(
            f"{directory / RECORD}: its weights are not the names of files; it is damaged"
        )
    return tuple(names)


def _read(directory: Path) -> Mapping[str, Any]:
    return read_object(directory / RECORD, "surrogateescape") or {}
