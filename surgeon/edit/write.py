"""Plan → artifact: the source with the planned bytes, ONNX, a card and the record."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import os
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from surgeon._version import __version__
from surgeon.edit.card import write_card
from surgeon.edit.changes import byte_patch
from surgeon.edit.files import (
    CARD,
    EXCISED,
    EXPORT,
    ONNX_FOLDER,
    SOURCE_CARD,
    FileState,
    SourceFiles,
    hash_file,
    inode,
    list_source_files,
    overlay,
    path_in_artifact,
    transfer,
)
from surgeon.edit.plan import Plan
from surgeon.edit.record import Choice, FileChange, Record, write_excised
from surgeon.edit.staging import check_output, staged
from surgeon.errors import ExportError, SurgeonError
from surgeon.model import Checkpoint, open_checkpoint
from surgeon.model.files import FOLDER, RECORD
from surgeon.model.pickle_file import PickleFile
from surgeon.model.tensors import FLOATS, TensorFile, open_safetensors
from surgeon.model.weight_files import SAFETENSORS, converted_index
from surgeon.onnx.facts import Dtype, OnnxFacts, OnnxOptions
from surgeon.progress import Progress, silent
from surgeon.tasks.configuration import check_sizes

_NO_ONNX = "use `onnx=False` for safetensors only"


def write_artifact(
    plan: Plan,
    output: str | Path,
    *,
    onnx: bool = True,
    dtype: Dtype = "float32",
    standalone: bool = False,
    fresh: bool = False,
    parity: bool = True,
    sources: SourceFiles | None = None,
    check: Callable[[Path], None] | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> Record:
    """Make the artifact that a plan describes.

    The weight files are copied with the planned scalars at their offsets, every byte hashed on its
    way; the other files are copied as they are. With ``onnx``, a graph is written whose weights are
    these: one that is kept for the architecture, or a new one, which needs torch and transformers.

    Args:
        plan: what to do.
        output: the directory to make. It appears whole, or not at all.
        onnx: whether to make ``onnx/model.onnx``.
        dtype: in which it computes.
        standalone: whether it holds its weights itself.
        fresh: whether to export although a graph is kept.
        parity: whether a new graph is compared with PyTorch.
        sources: the files to take over beside the weights (None: those of the model's directory).
        check: looks at the weights as they were written, in the folder that will be the output.
        force: whether an output that exists is replaced.
        progress: called at each step.

    Raises:
        OutputError: the output cannot be made there.
        ExportError: the export failed, does not match the weights, or is to have another dtype.
        CheckpointError: the source changed while it was read, or, with ``onnx``, its configuration
            does not fit its weights or tokenizer.
        EvaluationError: with ``onnx``, its tokenizer cannot be read.
    """
    output, options = Path(output), OnnxOptions(dtype, standalone, fresh, parity)
    checkpoint = plan.checkpoint
    if onnx:
        _check_exportable(checkpoint)
    source = checkpoint.source
    check_output(output, source, force=force)
    taken = list_source_files(checkpoint) if sources is None else sources
    with staged(output, force=force) as folder:
        files = _write_weights(plan, folder, progress)
        progress("copying the other files", 0, 0)
        for target, origin in taken.copied.items():
            files[target] = FileChange(
                origin, *transfer(checkpoint.directory / origin, folder / target)
            )
        if check is not None:
            progress("comparing what was written", 0, 0)
            check(folder)
        (folder / FOLDER).mkdir(exist_ok=True)
        write_excised(plan.edits, folder / EXCISED)
        facts = _export_patched(plan, folder, options, progress) if onnx else None
        write_card(plan, folder / SOURCE_CARD, folder / CARD)
        progress("hashing what was added", 0, 0)
        added = _hashes(folder, files)
        files |= {name: FileChange(None, None, state) for name, state in added.items()}
        record = _record(plan, taken, dict(sorted(files.items())), facts)
        (folder / RECORD).write_bytes(record.to_bytes())
        progress("flushing to disk", 0, 0)
    return record


def _check_exportable(checkpoint: Checkpoint) -> None:
    """Refuse, before anything is written, a checkpoint that transformers could not load."""
    path = checkpoint.files[0].path
    if not checkpoint.config:
        raise ExportError(
            f"{path}: has no config.json beside it, and the ONNX half needs one; put it there, "
            "or use `onnx=False`"
        )
    if checkpoint.index is None and path_in_artifact(checkpoint, path) != SAFETENSORS:
        raise ExportError(
            f"{path}: the ONNX half is made of a {SAFETENSORS}; rename it, or use `onnx=False`"
        )
    for site in checkpoint.sites:
        if (dtype := checkpoint.tensors[site.gain].dtype) not in FLOATS:
            raise ExportError(
                f"{checkpoint.where(site.gain)}: is quantized ({site.gain} is {dtype}), and the "
                "ONNX half is made of plain weights; use `onnx=False`"
            )
    check_sizes(checkpoint, _NO_ONNX)


def _write_weights(plan: Plan, folder: Path, progress: Progress) -> dict[str, FileChange]:
    """Write every weight file, and the index of shards, to the artifact."""
    checkpoint = plan.checkpoint
    written = {}
    for number, file in enumerate(checkpoint.files):
        progress("writing the weights", number, len(checkpoint.files))
        name = path_in_artifact(checkpoint, file.path)
        source = file.path.relative_to(checkpoint.directory).as_posix()
        written[name] = FileChange(source, *_write_patched(plan, file, name, folder / name))
    if checkpoint.index is not None:
        index = checkpoint.directory / checkpoint.index
        name = path_in_artifact(checkpoint, index)
        if name == checkpoint.index:
            states = transfer(index, folder / name)
        else:
            (folder / name).write_bytes(converted_index(index.read_bytes()))
            states = (hash_file(folder / name),) * 2
        written[name] = FileChange(checkpoint.index, *states)
    return written


def _write_patched(
    plan: Plan, file: TensorFile, name: str, target: Path
) -> tuple[FileState, FileState]:
    """Write a weight file, and return its states without the edits and with them."""
    located = file
    if isinstance(file, PickleFile):
        file.write_safetensors(target)
        located = open_safetensors(target)
    edits = [edit for edit in plan.edits if edit.tensor in located.tensors]
    old = byte_patch(edits, [edit.old for edit in edits], located.tensors)
    new = byte_patch(edits, [edit.new for edit in edits], located.tensors)
    if located is file:
        return transfer(file.path, target, old, new, plan.splices.get(name, ()))
    states = transfer(target, None, old, new)
    if new is not None:
        overlay(new, target)
    return states


def _export_patched(
    plan: Plan, folder: Path, options: OnnxOptions, progress: Progress
) -> dict[str, Any]:
    from surgeon.onnx.half import export_model  # brings onnx

    source = plan.checkpoint
    try:
        patched = open_checkpoint(folder, sites_pattern=source.sites_pattern, name=source.name)
        facts = export_model(
            patched,
            folder / ONNX_FOLDER,
            progress,
            otherwise=_NO_ONNX,
            place=_link,
            options=options,
        )
        return facts.to_json()
    except SurgeonError as error:
        # Its reader knows the source's files: those of this folder will be gone.
        message = str(error)
        for file in source.files:
            written = folder / path_in_artifact(source, file.path)
            message = message.replace(str(written), str(file.path))
        raise type(error)(message.replace(str(folder), str(source.directory))) from error


def _link(file: TensorFile, target: Path) -> None:
    """Have an artifact's weight file under a second name, or twice where there are no links.

    Of the two, the graph's is the file, because onnx reads data neither through a link nor from a
    file with two names (as hard links are), for fear of what these may lead to.
    """
    probe = target.with_name(f".{target.name}")
    try:
        probe.symlink_to(os.path.relpath(target, file.path.parent))
    except OSError:
        transfer(file.path, target)
        return
    file.path.rename(target)
    probe.rename(file.path)


def _copy(file: TensorFile, target: Path) -> None:
    if isinstance(file, PickleFile):
        file.write_safetensors(target)
    else:
        transfer(file.path, target)


def _hashes(folder: Path, known: Mapping[str, FileChange]) -> dict[str, FileState]:
    """Hash the files of a folder, by their paths in it, but for those that are known.

    A second name of one that is known has its hash.
    """
    states = {inode(folder / name): change.after for name, change in known.items()}
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    return {
        name: states.get(inode(path)) or hash_file(path)
        for name, path in sorted(paths.items())
        if name not in known and path.is_file()
    }


def _record(
    plan: Plan,
    sources: SourceFiles,
    files: Mapping[str, FileChange],
    onnx: Mapping[str, Any] | None,
) -> Record:
    checkpoint = plan.checkpoint
    names = [file.path.name for file in checkpoint.files]
    return Record(
        **_origin(checkpoint),
        weights=tuple(path_in_artifact(checkpoint, file.path) for file in checkpoint.files),
        converted_from=tuple(names) if isinstance(checkpoint.files[0], PickleFile) else (),
        recipe=plan.recipe.to_json(),
        dims=plan.dims,
        notes=plan.notes,
        hidden_size=checkpoint.hidden_size,
        parameters_changed=plan.parameters_changed,
        parameters_total=checkpoint.parameters_total,
        edits=plan.edits,
        left_out=tuple(sources.left_out),
        left_out_because=sources.left_out,
        files=files,
        onnx=onnx,
        onnx_patch=plan.onnx_patch,
        ranked_on=plan.ranked_on,
        sites_pattern=checkpoint.sites_pattern,
        choice=_choice(plan),
        versions=_versions(plan, exported=onnx is not None),
    )


def _choice(plan: Plan) -> Choice | None:
    """Return what the ranking says of the dims that it chose, if one did."""
    ranking = plan.ranking
    if ranking is None:
        return None
    found = {dimension.dim: dimension for dimension in ranking.dimensions}
    dimensions = tuple(found[dim] for dim in plan.dims)
    said = (ranking.method, ranking.basis, ranking.evidence, ranking.criterion)
    return Choice(*said, dimensions, ranking.measured)


def _versions(plan: Plan, *, exported: bool) -> dict[str, str]:
    """Return the versions of the libraries that read the weights, ranked and exported."""
    ran = exported or (plan.ranking is not None and plan.ranking.text is not None)
    names = ("numpy", *(("torch", "transformers") if ran else ()), *(("onnx",) if exported else ()))
    return {name: metadata.version(name) for name in names}


def _origin(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what a record begins with: by what it was made, when and of what."""
    return {
        "surgeon": __version__,
        "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "model": checkpoint.name,
        "revision": checkpoint.revision,
        "architecture": checkpoint.family.name,
    }


_RUN_IN_PYTORCH = "run it in PyTorch instead"


@dataclasses.dataclass(frozen=True)
class Export:
    """What was exported: ``files`` has the size and the hash of every file but this record."""

    surgeon: str
    created: str
    model: str
    revision: str | None
    architecture: str
    onnx: OnnxFacts = dataclasses.field(repr=False)
    files: dict[str, FileState] = dataclasses.field(repr=False)
    schema: int = 1

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``surgeon/export.json``."""
        return dataclasses.asdict(self)


def export(
    checkpoint: Checkpoint,
    output: str | Path,
    *,
    dtype: Dtype = "float32",
    standalone: bool = False,
    fresh: bool = False,
    parity: bool = True,
    force: bool = False,
    progress: Progress = silent,
) -> Export:
    """Export a checkpoint as it is to ``onnx/model.onnx``.

    The output holds the graph, its weights as the source has them, the configuration, the tokenizer
    and every other file of the source but its model card, and ``surgeon/export.json``.

    Args:
        checkpoint: what to export.
        output: the directory to make. It appears whole, or not at all.
        dtype: in which the graph computes.
        standalone: whether it holds its weights itself.
        fresh: whether to export although a graph is kept.
        parity: whether a new graph is compared with PyTorch.
        force: whether an output that exists is replaced.
        progress: called at each step.

    Raises:
        OutputError, ExportError, CheckpointError, EvaluationError: as ``write_artifact``.
    """
    from surgeon.onnx.half import export_model  # brings onnx

    output, options = Path(output), OnnxOptions(dtype, standalone, fresh, parity)
    if not checkpoint.config:
        path = checkpoint.files[0].path
        raise ExportError(f"{path}: has no config.json beside it, and an export needs one")
    check_sizes(checkpoint, _RUN_IN_PYTORCH)
    check_output(output, checkpoint.directory, force=force)
    with staged(output, force=force) as folder:
        for target, origin in list_source_files(checkpoint).copied.items():
            if not target.startswith(f"{FOLDER}/"):
                transfer(checkpoint.directory / origin, folder / target)
        facts = export_model(
            checkpoint,
            folder / ONNX_FOLDER,
            progress,
            otherwise=_RUN_IN_PYTORCH,
            place=_copy,
            options=options,
        )
        progress("hashing the files", 0, 0)
        done = Export(**_origin(checkpoint), onnx=facts, files=_hashes(folder, {}))
        (folder / FOLDER).mkdir(exist_ok=True)
        (folder / EXPORT).write_text(json.dumps(done.to_json(), indent=1) + "\n", "utf-8")
    return done
