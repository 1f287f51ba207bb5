"""Artifact → source: the undo, byte for byte, in a folder of its own or in memory."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt

from surgeon.edit.changes import BytePatch, Edit, byte_patch, with_slices
from surgeon.edit.files import FileState, path_of_copy, transfer
from surgeon.edit.record import Record, inside, read_excised, read_record
from surgeon.edit.staging import check_output, staged
from surgeon.errors import CheckpointError
from surgeon.model import Checkpoint, TensorFile, TensorInfo, open_checkpoint
from surgeon.model.files import RECORD, weights_size
from surgeon.model.tensors import open_safetensors
from surgeon.model.weight_files import converted_name
from surgeon.progress import Progress, silent


def restore(
    artifact: str | Path, output: str | Path, *, force: bool = False, progress: Progress = silent
) -> Record:
    """Give back the source of an artifact, and check every file against the recorded hash.

    A source that was a pickle comes back as safetensors with the same tensors; files that the
    artifact left out (weights in other formats) do not come back. The returned record names
    both.

    Raises:
        CheckpointError: the artifact is damaged, so that the source cannot be had from it.
        OutputError: the output cannot be made there.
    """
    artifact, output = Path(artifact), Path(output)
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


def open_source(artifact: Path) -> Checkpoint:
    """Open an artifact as its source was, to read tensors from; nothing is written.

    Raises:
        CheckpointError: the artifact is damaged.
    """
    record = read_record(artifact)
    patched = open_patched(record, artifact)
    for name in record.weights:
        _old_values(record, artifact, name)  # refuses a record that does not fit the weights
    excised = read_excised(artifact)
    files = (
        _Undone(file.path, file.tensors, file, record.edits, excised) for file in patched.files
    )
    return replace(patched, name=record.model, files=tuple(files))


def open_patched(record: Record, artifact: Path) -> Checkpoint:
    """Open an artifact as it is, whatever it was made from.

    Raises:
        CheckpointError: the artifact is damaged.
    """
    if record.edited_graph is None:
        return open_checkpoint(artifact)
    # Loaded by name, as a plug-in is: what edits ONNX files is not part of the core.
    annex = importlib.import_module("surgeon.onnx_files.open_onnx")
    opened = annex.open_onnx(artifact / record.edited_graph, record.sites_pattern)
    checkpoint: Checkpoint = opened.checkpoint
    return checkpoint


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
    size, recorded = weights_size(path), record.files[name].after.size
    if size != recorded:
        raise CheckpointError(
            f"{path}: has {size:,} bytes and had {recorded:,}, so it was changed after the patch; "
            "restore needs the artifact as surgeon made it"
        )
    undo = record.undo_splices(name)
    return transfer(path, target, new=_old_values(record, artifact, name), splices=undo)


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
        if name in (source, path_of_copy(source)):
            return source
    raise CheckpointError(f"{RECORD}: {name} cannot have been {source}; the record is damaged")


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


def _old_values(record: Record, artifact: Path, name: str) -> BytePatch | None:
    """Locate the excised values in a weight file that was edited; None for any other file."""
    edits = [edit for edit in record.edits if edit.file == name]
    if not edits:
        return None
    excised, tensors = read_excised(artifact), _tensors_in(record, artifact, name)
    for edit in edits:
        shape = tensors[edit.tensor].shape if edit.tensor in tensors else ()
        if edit.tensor not in excised or not edit.fits(shape, excised[edit.tensor].shape):
            raise CheckpointError(
                f"{artifact}: the record's edit of {edit.tensor} does not fit the weights; "
                "the artifact is damaged"
            )
    return byte_patch(edits, [excised[edit.tensor] for edit in edits], tensors)


def _tensors_in(record: Record, artifact: Path, name: str) -> Mapping[str, TensorInfo]:
    """Return where the tensors of a recorded weight file are."""
    path, graph = artifact / inside(name), record.edited_graph
    if graph is None:
        return open_safetensors(path).tensors
    from surgeon.onnx.file_graph import tensor_files
    from surgeon.onnx.read_graph import read_file_graph

    files = {file.path: file for file in tensor_files(read_file_graph(artifact / graph, artifact))}
    return files[path].tensors if path in files else {}
