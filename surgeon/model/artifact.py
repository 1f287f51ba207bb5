"""What an artifact says about its own weights, whose names may be a person's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from surgeon.errors import CheckpointError
from surgeon.model.files import is_file_name, read_object

FOLDER = "surgeon"
"""The folder inside an artifact that holds all that surgeon adds for itself."""

RECORD = f"{FOLDER}/record.json"
"""The file that makes a directory an artifact."""

SCHEMA = 1
"""Of the record."""

OWN_HASH = "blake3"
"""The record's key for its own hash, which older records do not have."""


def own_hash(fields: Mapping[str, Any]) -> str:
    """Return the hash of all that a record says; the order of its keys and its gaps do not count.

    Args:
        fields: as they were parsed. The hash itself may be among them.
    """
    from blake3 import blake3

    said = {name: value for name, value in fields.items() if name != OWN_HASH}
    return blake3(json.dumps(said, sort_keys=True).encode()).hexdigest()


def is_artifact(directory: Path) -> bool:
    """Whether surgeon made the directory."""
    return (directory / RECORD).is_file()


def recorded_pattern(directory: Path) -> str | None:
    """Return the ``sites_pattern`` that an artifact was made with, None for none."""
    pattern = read_fields(directory).get("sites_pattern")
    return pattern if isinstance(pattern, str) else None


def recorded_weights(directory: Path) -> tuple[str, ...]:
    """Return the names of an artifact's weight files, none for a directory that is no artifact.

    Raises:
        CheckpointError: the record is damaged or names a file elsewhere, or the artifact was made
            from an ONNX file.
    """
    record = read_fields(directory)
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


def read_fields(directory: Path) -> Mapping[str, Any]:
    """Return what an artifact's record says, nothing for a directory that is no artifact.

    Raises:
        CheckpointError: the record is not as it was written.
    """
    fields = read_object(directory / RECORD, "surrogateescape") or {}
    hashed = fields.get("schema") == SCHEMA and OWN_HASH in fields
    if hashed and fields[OWN_HASH] != own_hash(fields):
        raise CheckpointError(
            f"{directory / RECORD}: damaged (its hash is not that of what it says); get the "
            "artifact again, or patch again"
        )
    return fields
