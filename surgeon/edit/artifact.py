"""The weights of an artifact: as they are, and as they were before the patch."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt

from surgeon.edit.changes import BytePatch, Edit, byte_patch, with_slices
from surgeon.edit.record import Record, inside, read_excised, read_record
from surgeon.errors import CheckpointError
from surgeon.model import Checkpoint, TensorFile, open_checkpoint
from surgeon.model.safetensors_file import open_safetensors


def open_patched(record: Record, artifact: Path) -> Checkpoint:
    """Open an artifact as it is, whatever it was made from.

    Raises:
        CheckpointError: the artifact is damaged.
    """
    if record.edited_graph is None:
        return open_checkpoint(artifact)
    # Loaded by name, as a plug-in is: what edits ONNX files is no part of the core.
    annex = importlib.import_module("surgeon.onnx_files.open_onnx")
    opened: Checkpoint = annex.open_onnx(
        artifact / record.edited_graph, record.sites_pattern
    ).checkpoint
    return opened


def open_source(artifact: Path) -> Checkpoint:
    """Open an artifact as its source was, to read tensors from; nothing is written.

    Raises:
        CheckpointError: the artifact is damaged.
    """
    record = read_record(artifact)
    patched = open_patched(record, artifact)
    for name in record.weights:
        old_values(record, artifact, name)  # refuses a record that does not fit the weights
    excised = read_excised(artifact)
    files = (
        _Undone(file.path, file.tensors, file, record.edits, excised) for file in patched.files
    )
    return replace(patched, name=record.model, files=tuple(files))


@dataclass(frozen=True)
class _Undone(TensorFile):
    """A weight file of an artifact, read as if the excised values were back in place."""

    patched: TensorFile
    edits: tuple[Edit, ...]
    excised: Mapping[str, npt.NDArray[Any]]

    def pieces(self, name: str) -> Iterator[bytes]:
        if name not in self.excised:
            yield from self.patched.pieces(name)
            return
        tensor = self.patched.read(name)
        for edit in self.edits:
            if edit.tensor == name:
                tensor = with_slices(tensor, edit.axis, edit.dims, self.excised[name])
        yield tensor.tobytes()


def read_edited(record: Record, artifact: Path) -> dict[str, npt.NDArray[Any]]:
    """Read the edited tensors as an artifact has them, whole.

    Raises:
        CheckpointError: a weight file is missing or damaged.
    """
    names = {edit.file for edit in record.edits}
    files = {name: open_weight_file(record, artifact, name) for name in names}
    return {
        edit.tensor: files[edit.file].read(edit.tensor)
        for edit in record.edits
        if edit.tensor in files[edit.file].tensors
    }


def old_values(record: Record, artifact: Path, name: str) -> BytePatch | None:
    """Locate the excised values in one weight file; None if it was not edited.

    Raises:
        CheckpointError: they do not fit the file.
    """
    edits = [edit for edit in record.edits if edit.file == name]
    if not edits:
        return None
    excised = read_excised(artifact)
    tensors = open_weight_file(record, artifact, name).tensors
    for edit in edits:
        shape = tensors[edit.tensor].shape if edit.tensor in tensors else ()
        if edit.tensor not in excised or not edit.fits(shape, excised[edit.tensor].shape):
            raise CheckpointError(
                f"{artifact}: the record's edit of {edit.tensor} does not fit the weights; "
                "the artifact is damaged"
            )
    return byte_patch(edits, [excised[edit.tensor] for edit in edits], tensors)


def open_weight_file(record: Record, artifact: Path, name: str) -> TensorFile:
    """Open a recorded weight file of an artifact, which knows where its tensors' bytes are.

    Raises:
        CheckpointError: the file is missing or damaged, or the record names no such file.
    """
    path, graph = artifact / inside(name), record.edited_graph
    if graph is None:
        return open_safetensors(path)
    from surgeon.onnx.read_graph import read_file_graph
    from surgeon.onnx.tensor_files import tensor_files

    for file in tensor_files(read_file_graph(artifact / graph, artifact)):
        if file.path == path:
            return file
    raise CheckpointError(f"{path}: holds no tensor of {graph}; the artifact is damaged")
