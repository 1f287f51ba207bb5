"""Artifact → source: the undo, byte for byte."""

from __future__ import annotations

from pathlib import Path

from surgeon.edit.artifact import old_values
from surgeon.edit.record import Record, inside, read_record
from surgeon.edit.source_files import place
from surgeon.edit.staging import check_output, staged
from surgeon.edit.transfer import FileState, transfer
from surgeon.errors import CheckpointError
from surgeon.model.artifact import RECORD
from surgeon.model.files import regular_size
from surgeon.model.weight_files import converted_name
from surgeon.progress import Progress, silent


def restore(
    artifact: Path, output: Path, *, force: bool = False, progress: Progress = silent
) -> Record:
    """Give back the source of an artifact, and check every file against the recorded hash.

    A source that was a pickle comes back as safetensors with the same tensors; files that the
    artifact left out (weights in other formats) do not come back. The returned record names
    both.

    Raises:
        CheckpointError: the artifact is damaged, so that the source cannot be had from it.
        OutputError: the output cannot be made there.
    """
    record = read_record(artifact)
    check_output(output, artifact, force=force)
    with staged(output, force=force) as folder:
        for number, (name, change) in enumerate(record.files.items()):
            if change.source is None:
                continue
            progress(f"restoring {name}", number, len(record.files))
            target = folder / source_path(record, name, change.source)
            if source_states(record, artifact, name, target) != (change.after, change.before):
                raise CheckpointError(
                    f"{name}: its hash is not the recorded one, so it was changed after the patch; "
                    "restore needs the artifact as surgeon made it"
                )
    return record


def source_states(
    record: Record, artifact: Path, name: str, target: Path | None = None
) -> tuple[FileState, FileState]:
    """Return the states of a recorded file as it is, and with what the patch did to it undone.

    Args:
        record: of the artifact.
        artifact: its directory.
        name: a key of ``record.files``.
        target: where to write the latter (None: nowhere).

    Raises:
        CheckpointError: the file is missing, is no file of the recorded size, or does not fit the
            record.
    """
    path = artifact / inside(name)
    size, recorded = regular_size(path), record.files[name].after.size
    if size != recorded:
        raise CheckpointError(
            f"{path}: has {size:,} bytes and had {recorded:,}, so it was changed after the patch; "
            "restore needs the artifact as surgeon made it"
        )
    undo = record.undo_splices(name)
    return transfer(path, target, new=old_values(record, artifact, name), splices=undo)


def source_path(record: Record, name: str, source: str) -> str:
    """Return where a file of an artifact goes in its source.

    Each file has the name that its source's has, but for the source's own card and for what was
    converted from pickles: the record must not say another.

    Raises:
        CheckpointError: it does, or the path leaves the folder.
    """
    origins = dict(zip(record.weights, record.converted_from or record.weights, strict=False))
    if origins.get(name, inside(source)) == source:
        if record.converted_from and name == converted_name(source):
            return name
        if name == (source if name in origins else place(source)):
            return source
    raise CheckpointError(f"{RECORD}: {name} cannot have been {source}; the record is damaged")
