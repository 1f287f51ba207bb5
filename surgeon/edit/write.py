"""Plan → artifact: the source with the planned bytes, ONNX, a card and the record."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from surgeon._version import __version__
from surgeon.edit.card import write_card
from surgeon.edit.plan import Plan
from surgeon.edit.record import (
    FileChange,
    Record,
    edit_record,
    write_excised,
)
from surgeon.edit.source_files import (
    CARD,
    EXCISED,
    EXPORT,
    ONNX_FOLDER,
    SOURCE_CARD,
    SourceFiles,
    list_source_files,
)
from surgeon.edit.staging import check_output, staged
from surgeon.edit.transfer import (
    FileState,
    Slices,
    hash_file,
    make_byte_patch,
    transfer,
)
from surgeon.errors import ExportError, SurgeonError
from surgeon.model import Checkpoint, open_checkpoint
from surgeon.model.artifact import FOLDER, RECORD
from surgeon.model.pickle_file import PickleFile
from surgeon.model.safetensors_file import FLOATS, SafetensorsFile, open_safetensors
from surgeon.model.weight_files import (
    SAFETENSORS,
    converted_index,
    converted_name,
)
from surgeon.onnx.facts import Dtype, OnnxFacts
from surgeon.progress import Progress, silent
from surgeon.tasks.sizes import check_sizes

_NO_ONNX = "use --no-onnx for the safetensors half alone"


def operate(
    plan: Plan,
    output: Path,
    *,
    onnx: bool = True,
    dtype: Dtype = "float32",
    force: bool = False,
    progress: Progress = silent,
) -> Record:
    """Make the artifact that a plan describes.

    The weight files are copied with the planned scalars at their offsets, every byte hashed on its
    way; the other files are copied as they are. With ``onnx``, the patched model is exported too,
    which needs torch and transformers.

    Args:
        plan: what to do.
        output: the directory to make. It appears whole, or not at all.
        onnx: whether to export ``onnx/model.onnx``.
        dtype: of its weights.
        force: whether an output that exists is replaced.
        progress: told of each step.

    Raises:
        OutputError: the output cannot be made there.
        ExportError: the export failed, or does not match the weights.
        CheckpointError: the source changed while it was read.
    """
    checkpoint = plan.checkpoint
    source = checkpoint.directory
    if onnx:
        _check_exportable(checkpoint)
    check_output(output, checkpoint.files[0].path if checkpoint.alone else source, force=force)
    sources = list_source_files(checkpoint)
    with staged(output, force=force) as folder:
        files = _write_weights(plan, folder, progress)
        progress("copying the other files", 0, 0)
        for target, origin in sources.copied.items():
            before, after = transfer(source / origin, folder / target)
            files[target] = FileChange(origin, before, after)
        (folder / EXCISED).parent.mkdir(exist_ok=True)
        write_excised(plan, folder / EXCISED)
        onnx_facts = _export(plan, folder, dtype, progress) if onnx else None
        write_card(plan, folder / SOURCE_CARD, folder / CARD)
        progress("hashing what was added", 0, 0)
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            name = path.relative_to(folder).as_posix()
            if name not in files:
                files[name] = FileChange(None, None, hash_file(path))
        record = _record(plan, sources, dict(sorted(files.items())), onnx_facts)
        (folder / RECORD).write_bytes(record.to_bytes())
        progress("flushing to disk", 0, 0)
    return record


def _check_exportable(checkpoint: Checkpoint) -> None:
    """Refuse, before anything is written, a checkpoint that transformers could not load."""
    path = checkpoint.files[0].path
    if not checkpoint.config:
        raise ExportError(
            f"{path}: has no config.json beside it, and the ONNX half needs one; put it there, "
            "or use --no-onnx"
        )
    if checkpoint.index is None and _artifact_name(checkpoint, path.name) != SAFETENSORS:
        raise ExportError(
            f"{path}: the ONNX half is made of a {SAFETENSORS}; rename it, or use --no-onnx"
        )
    for site in checkpoint.sites:
        if (dtype := checkpoint.tensors[site.gain].dtype) not in FLOATS:
            raise ExportError(
                f"{checkpoint.where(site.gain)}: is quantized ({site.gain} is {dtype}), and the "
                "ONNX half is made of plain weights; use --no-onnx"
            )
    check_sizes(checkpoint, _NO_ONNX)


def _write_weights(plan: Plan, folder: Path, progress: Progress) -> dict[str, FileChange]:
    """Write every weight file, and the index of shards, to the artifact."""
    checkpoint = plan.checkpoint
    written = {}
    for number, file in enumerate(checkpoint.files):
        progress("writing the weights", number, len(checkpoint.files))
        name = _artifact_name(checkpoint, file.path.name)
        if isinstance(file, PickleFile):
            converted = folder / f"{name}.unpatched"
            file.write_safetensors(converted)
            written[name] = _write_patched(plan, open_safetensors(converted), folder / name)
            converted.unlink()
        else:
            written[name] = _write_patched(plan, file, folder / name)
        written[name] = dataclasses.replace(written[name], source=file.path.name)
    if checkpoint.index is not None:
        name = _artifact_name(checkpoint, checkpoint.index)
        index = checkpoint.directory / checkpoint.index
        if name == checkpoint.index:
            written[name] = FileChange(name, *transfer(index, folder / name))
        else:
            (folder / name).write_bytes(converted_index(index.read_bytes()))
            state = hash_file(folder / name)
            written[name] = FileChange(checkpoint.index, state, state)
    return written


def _write_patched(plan: Plan, file: SafetensorsFile, target: Path) -> FileChange:
    edits = [edit for edit in plan.edits if edit.tensor in file.tensors]
    if not edits:
        return FileChange(None, *transfer(file.path, target))
    old, new = (
        make_byte_patch([Slices(e.tensor, e.axis, e.dims, v) for e, v in pairs], file.tensors)
        for pairs in (((e, e.old) for e in edits), ((e, e.new) for e in edits))
    )
    return FileChange(None, *transfer(file.path, target, old, new))


def _artifact_name(checkpoint: Checkpoint, name: str) -> str:
    """Return what a weight file or index is called in the artifact."""
    return converted_name(name) if isinstance(checkpoint.files[0], PickleFile) else name


def _export(plan: Plan, folder: Path, dtype: Dtype, progress: Progress) -> Mapping[str, Any]:
    from surgeon.onnx.export import export_model  # brings torch and transformers

    source = plan.checkpoint
    try:
        facts = export_model(
            open_checkpoint(folder, sites_pattern=source.sites_pattern, name=source.name),
            folder / ONNX_FOLDER,
            progress,
            otherwise=_NO_ONNX,
            dtype=dtype,
        )
    except SurgeonError as error:
        # Its reader knows the source's files: those of this folder will be gone.
        told = str(error)
        for file in source.files:
            name = _artifact_name(source, file.path.name)
            told = told.replace(str(folder / name), str(file.path))
        raise type(error)(told.replace(str(folder), str(source.directory))) from error
    return facts.to_json()


def _record(
    plan: Plan,
    sources: SourceFiles,
    files: Mapping[str, FileChange],
    onnx: Mapping[str, Any] | None,
) -> Record:
    checkpoint = plan.checkpoint
    names = [file.path.name for file in checkpoint.files]
    converted = isinstance(checkpoint.files[0], PickleFile)
    return Record(
        surgeon=__version__,
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        model=checkpoint.name,
        revision=checkpoint.revision,
        architecture=checkpoint.family.name,
        weights=tuple(_artifact_name(checkpoint, name) for name in names),
        converted_from=tuple(names) if converted else (),
        recipe=plan.recipe.to_json(),
        dims=plan.dims,
        notes=plan.notes,
        hidden_size=checkpoint.hidden_size,
        parameters_changed=plan.parameters_changed,
        parameters_total=checkpoint.parameters_total,
        edits=tuple(
            edit_record(edit, _artifact_name(checkpoint, checkpoint.homes[edit.tensor].path.name))
            for edit in plan.edits
        ),
        left_out=tuple(sources.left_out),
        left_out_because=sources.left_out,
        files=files,
        onnx=onnx,
        ranked_on=plan.ranked_on,
        sites_pattern=checkpoint.sites_pattern,
    )


SCHEMA = 1
_INSTEAD = "run it in PyTorch instead"


@dataclasses.dataclass(frozen=True)
class Export:
    """What was exported: ``files`` has the size and the hash of every file but this record."""

    surgeon: str
    created: str
    model: str
    revision: str | None
    architecture: str
    onnx: OnnxFacts
    files: dict[str, FileState]
    schema: int = SCHEMA

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``surgeon/export.json``."""
        return dataclasses.asdict(self)


def export(
    checkpoint: Checkpoint,
    output: Path,
    *,
    dtype: Dtype = "float32",
    force: bool = False,
    progress: Progress = silent,
) -> Export:
    """Export a checkpoint as it is to ``onnx/model.onnx``.

    The output holds the graph, the configuration, the tokenizer and every other file of the source
    but its weights and its model card, and ``surgeon/export.json``.

    Args:
        checkpoint: what to export.
        output: the directory to make. It appears whole, or not at all.
        dtype: of the weights in the graph.
        force: whether an output that exists is replaced.
        progress: told of each step.

    Raises:
        OutputError: the output cannot be made there.
        ExportError: the export failed, or does not match the weights.
    """
    if not checkpoint.config:
        path = checkpoint.files[0].path
        raise ExportError(f"{path}: has no config.json beside it, and an export needs one")
    check_sizes(checkpoint, _INSTEAD)
    check_output(output, checkpoint.directory, force=force)
    with staged(output, force=force) as folder:
        for target, origin in list_source_files(checkpoint).copied.items():
            if not target.startswith(f"{FOLDER}/"):
                transfer(checkpoint.directory / origin, folder / target)
        facts = _export_again(checkpoint, folder, dtype, progress)
        progress("hashing the files", 0, 0)
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        done = Export(
            surgeon=__version__,
            created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            model=checkpoint.name,
            revision=checkpoint.revision,
            architecture=checkpoint.family.name,
            onnx=facts,
            files={path.relative_to(folder).as_posix(): hash_file(path) for path in paths},
        )
        (folder / FOLDER).mkdir(exist_ok=True)
        (folder / EXPORT).write_text(json.dumps(done.to_json(), indent=1) + "\n", "utf-8")
    return done


def _export_again(
    checkpoint: Checkpoint, folder: Path, dtype: Dtype, progress: Progress
) -> OnnxFacts:
    progress("loading PyTorch", 0, 0)
    from surgeon.onnx.export import export_model  # brings torch and transformers

    return export_model(
        checkpoint,
        folder / ONNX_FOLDER,
        progress,
        otherwise=_INSTEAD,
        dtype=dtype,
    )
