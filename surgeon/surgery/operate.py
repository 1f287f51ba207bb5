"""Plan → artifact: copy the source, write the planned bytes, prove it, add ONNX and the record."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import surgeon
from surgeon.checkpoint.model_directory import SAFETENSORS_NAME
from surgeon.checkpoint.pickle_file import PickleFile
from surgeon.checkpoint.safetensors_file import open_safetensors
from surgeon.errors import CheckpointError
from surgeon.progress import Progress, silent
from surgeon.surgery.byte_patch import (
    Slices,
    apply,
    hash_as_if_patched,
    hash_file,
    make_byte_patch,
)
from surgeon.surgery.card import write_card
from surgeon.surgery.plan import Plan
from surgeon.surgery.record import (
    EXCISED,
    RECORD,
    FileChange,
    FileState,
    Record,
    edit_record,
    write_excised,
)
from surgeon.surgery.source_files import (
    CARD,
    ONNX_FOLDER,
    SourceFiles,
    copy_file,
    list_source_files,
)
from surgeon.surgery.staging import check_output, staged


def operate(
    plan: Plan,
    output: Path,
    *,
    onnx: bool = True,
    force: bool = False,
    progress: Progress = silent,
) -> Record:
    """Make the artifact that a plan describes.

    The weight file is copied as it is and the planned scalars are written at their offsets; the
    other files are copied. With ``onnx``, the patched model is exported too, which needs torch
    and transformers.

    Args:
        plan: what to do.
        output: the directory to make. It appears whole, or not at all.
        onnx: whether to export ``onnx/model.onnx``.
        force: whether an output that exists is replaced.
        progress: told of each step.

    Raises:
        OutputError: the output cannot be made there.
        ExportError: the export failed, or does not match the weights.
        CheckpointError: the source changed while it was read.
    """
    source = plan.checkpoint.directory
    check_output(output, source, force=force)
    sources = list_source_files(source, plan.checkpoint.weights.path.name)
    with staged(output, RECORD) as folder:
        progress("copying the other files", 0, 0)
        for target, origin in sources.copied.items():
            copy_file(source / origin, folder / target)
        progress("writing the weights", 0, 0)
        weights, change = _write_weights(plan, folder)
        (folder / EXCISED).parent.mkdir(exist_ok=True)
        write_excised(plan, folder / EXCISED)
        onnx_facts = _export(plan, folder, progress) if onnx else None
        write_card(plan, source / CARD, folder / CARD)
        progress("hashing", 0, 0)
        files = {**_hash_others(folder, sources, source, skip=weights), weights: change}
        record = _record(plan, weights, sources, dict(sorted(files.items())), onnx_facts)
        (folder / RECORD).write_bytes(record.to_bytes())
        progress("flushing to disk", 0, 0)
    return record


def _write_weights(plan: Plan, folder: Path) -> tuple[str, FileChange]:
    """Write the patched weights and prove that only the planned bytes differ."""
    weights = plan.checkpoint.weights
    if isinstance(weights, PickleFile):
        name, before = SAFETENSORS_NAME, None
        weights.write_safetensors(folder / name)
        unpatched = hash_file(folder / name)
    else:
        name = weights.path.name
        copy_file(weights.path, folder / name)
        unpatched = hash_file(weights.path)
        before = FileState(weights.path.stat().st_size, unpatched)
    tensors = open_safetensors(folder / name).tensors
    new = [Slices(edit.tensor, edit.axis, edit.dims, edit.new) for edit in plan.edits]
    apply(make_byte_patch(new, tensors), folder / name)
    # The proof: with the old values put back, the file is the source again, to the last byte.
    old = [Slices(edit.tensor, edit.axis, edit.dims, edit.old) for edit in plan.edits]
    if hash_as_if_patched(make_byte_patch(old, tensors), folder / name) != unpatched:
        raise _source_changed(name)
    return name, FileChange(weights.path.name, before, _state(folder / name))


def _source_changed(name: str) -> CheckpointError:
    return CheckpointError(
        f"{name}: the copy differs from the source in more than the planned scalars; the source "
        "changed meanwhile, or the disk is failing: try again"
    )


def _export(plan: Plan, folder: Path, progress: Progress) -> Mapping[str, Any]:
    from surgeon.onnx_model.export import export_model  # brings torch and transformers

    return export_model(folder, folder / ONNX_FOLDER, plan.checkpoint.family, progress).to_json()


def _hash_others(
    folder: Path, sources: SourceFiles, source: Path, *, skip: str
) -> dict[str, FileChange]:
    changes = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if name == skip:
            continue
        origin = sources.copied.get(name)
        before = _state(source / origin) if origin is not None else None
        after = _state(path)
        if before not in (None, after):
            raise _source_changed(name)
        changes[name] = FileChange(origin, before, after)
    return changes


def _state(path: Path) -> FileState:
    return FileState(path.stat().st_size, hash_file(path))


def _record(
    plan: Plan,
    weights: str,
    sources: SourceFiles,
    files: Mapping[str, FileChange],
    onnx: Mapping[str, Any] | None,
) -> Record:
    checkpoint = plan.checkpoint
    origin = checkpoint.weights.path.name
    converted = isinstance(checkpoint.weights, PickleFile)
    return Record(
        surgeon=surgeon.__version__,
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        model=checkpoint.name,
        revision=None,
        architecture=checkpoint.family.name,
        weights=weights,
        converted_from=origin if converted else None,
        recipe=plan.recipe.to_json(),
        dims=plan.dims,
        hidden_size=checkpoint.hidden_size,
        parameters_changed=plan.parameters_changed,
        parameters_total=checkpoint.parameters_total,
        edits=tuple(edit_record(edit) for edit in plan.edits),
        left_out=sources.left_out,
        files=files,
        onnx=onnx,
    )
