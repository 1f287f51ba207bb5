"""Artifact → source: the undo, byte for byte."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy.typing as npt

from surgeon.edit.record import (
    Record,
    read_excised,
    read_record,
)
from surgeon.edit.selection import with_slices
from surgeon.edit.source_files import place
from surgeon.edit.staging import check_output, staged
from surgeon.edit.transfer import (
    BytePatch,
    FileState,
    Slices,
    hash_file,
    make_byte_patch,
    transfer,
)
from surgeon.errors import CheckpointError
from surgeon.model import (
    Checkpoint,
    TensorInfo,
    open_checkpoint,
)
from surgeon.model.artifact import RECORD
from surgeon.model.files import regular_size
from surgeon.model.safetensors_file import open_safetensors
from surgeon.model.weight_files import converted_name
from surgeon.onnx_files.open_onnx import OnnxModel, open_onnx
from surgeon.onnx_files.patch import open_patched, undo_splices
from surgeon.onnx_files.plan import (
    hash_pieces,
    spliced,
    write_pieces,
)
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
    patch, splices = old_values(record, artifact, name), undo_splices(record, name)
    if not splices:
        return transfer(path, target, None, patch)
    pieces = spliced(path, splices, patch)
    return hash_file(path), write_pieces(pieces, target) if target else hash_pieces(pieces)


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


@dataclass(frozen=True, kw_only=True)
class _Source(Checkpoint):
    """An artifact read as if the excised values were back in place."""

    record: Record
    excised: Mapping[str, npt.NDArray[Any]]

    def read(self, name: str) -> npt.NDArray[Any]:
        return _as_it_was(name, super().read(name), self.record, self.excised)


@dataclass(frozen=True, kw_only=True)
class _OnnxSource(OnnxModel):
    """The same of an artifact that was made from an ONNX file."""

    record: Record
    excised: Mapping[str, npt.NDArray[Any]]

    def read(self, name: str) -> npt.NDArray[Any]:
        return _as_it_was(name, super().read(name), self.record, self.excised)


def _as_it_was(
    name: str, tensor: npt.NDArray[Any], record: Record, excised: Mapping[str, npt.NDArray[Any]]
) -> npt.NDArray[Any]:
    for edit in record.edits:
        if edit.tensor == name:
            tensor = with_slices(tensor, edit.axis, edit.dims, excised[name])
    return tensor


def open_source(artifact: Path) -> Checkpoint:
    """Open an artifact as its source was, to read tensors from; nothing is written.

    Raises:
        CheckpointError: the artifact is damaged.
    """
    record = read_record(artifact)
    opened = open_edited(record, artifact)
    for name in record.weights:
        old_values(record, artifact, name)  # refuses a record that does not fit the weights
    fields = {f.name: getattr(opened, f.name) for f in dataclasses.fields(opened)}
    fields["name"] = record.model
    source = _Source if record.onnx_patch is None else _OnnxSource
    return source(**fields, record=record, excised=read_excised(artifact))


def open_edited(record: Record, artifact: Path) -> Checkpoint:
    """Open an artifact as it is, whatever it was made from.

    Raises:
        CheckpointError: the artifact is damaged.
    """
    if record.onnx_patch is None:
        return open_checkpoint(artifact)
    return open_onnx(artifact / inside(record.onnx_patch.model), record.sites_pattern)


def old_values(record: Record, artifact: Path, name: str) -> BytePatch | None:
    """Locate the excised values in one weight file; None if it was not edited."""
    edits = [edit for edit in record.edits if edit.file == name]
    if not edits:
        return None
    excised = read_excised(artifact)
    tensors = tensors_in(record, artifact, name)
    slices = []
    for edit in edits:
        shape = tensors[edit.tensor].shape if edit.tensor in tensors else ()
        values = excised.get(edit.tensor)
        if values is None or not edit.fits(shape, values.shape):
            raise CheckpointError(
                f"{artifact}: the record's edit of {edit.tensor} does not fit the weights; "
                "the artifact is damaged"
            )
        slices.append(Slices(edit.tensor, edit.axis, edit.dims, values))
    return make_byte_patch(slices, tensors)


def tensors_in(record: Record, artifact: Path, name: str) -> Mapping[str, TensorInfo]:
    """Return where the tensors of a recorded weight file lie."""
    if record.onnx_patch is None:
        return open_safetensors(artifact / inside(name)).tensors
    inside(record.onnx_patch.model)
    file = open_patched(record, artifact).get(inside(name))
    return file.tensors if file else {}


def inside(name: str) -> str:
    """Return a recorded path if it stays inside its folder; a record is untrusted input."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\\" in name:
        raise CheckpointError(f"{RECORD}: the path {name!r} leaves the folder; it is damaged")
    return name
