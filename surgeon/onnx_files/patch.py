"""ONNX file → artifact: the file with the planned scalars in it, its data files, and the record.

The graph is not re-serialised. A scalar is written at its offset; only a split adds bytes, and the
record keeps what undoes that, so that ``restore`` gives back the source byte for byte.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from surgeon._version import __version__
from surgeon.edit.card import write_card
from surgeon.edit.plan import Edit
from surgeon.edit.record import (
    FileChange,
    OnnxPatch,
    Record,
    SplitRecord,
    Undo,
    edit_record,
    write_excised,
)
from surgeon.edit.selection import with_slices
from surgeon.edit.source_files import CARD, EXCISED, is_twin, place
from surgeon.edit.staging import check_output, staged
from surgeon.edit.transfer import (
    BytePatch,
    Slices,
    hash_file,
    make_byte_patch,
    transfer,
)
from surgeon.errors import CheckpointError, OutputError
from surgeon.model.artifact import RECORD
from surgeon.model.files import may_follow
from surgeon.onnx.file_graph import FileGraph, Node
from surgeon.onnx.read_graph import mapped, read_file_graph
from surgeon.onnx.tensor_files import TensorFile, tensor_files
from surgeon.onnx_files.plan import (
    OnnxPlan,
    Splice,
    inverse,
    renamed_inputs,
    spliced,
    split_splices,
    write_pieces,
)
from surgeon.progress import Progress, silent

# What belongs to a model beside its weights. A folder with an ONNX file may hold anything else.
_COPIED = (
    "config.json", "generation_config.json", "*tokenizer*.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt", "*.model", "ort_config.json",
    "preprocessor_config.json", "modules.json", "sentence_*_config.json",
    "config_sentence_transformers.json", "1_Pooling/config.json", "README.md", "LICENSE*",
)  # fmt: skip
_SIDES = ("old", "new")


def operate_onnx(
    planned: OnnxPlan, output: Path, *, force: bool = False, progress: Progress = silent
) -> Record:
    """Make the artifact that a plan for an ONNX file describes.

    Afterwards the written graph is compared with the source's, node by node and tensor by tensor.

    Args:
        planned: what to do.
        output: the directory to make. It appears whole, or not at all.
        force: whether an output that exists is replaced.
        progress: told of each step.

    Raises:
        OutputError: the output cannot be made there.
        CheckpointError: the source changed while it was read.
    """
    model = planned.model
    source = model.directory
    _check_output(planned, output, force=force)
    splices = split_splices(planned)
    with staged(output, force=force) as folder:
        files = {}
        for number, file in enumerate(_data_files(planned)):
            progress("writing the weights", number, len(model.files))
            name = file.path.relative_to(source).as_posix()
            files[name] = _write(planned, file, folder / name, splices)
        copied, left_out = _side_files(planned, files)
        for target, origin in copied.items():
            files[target] = FileChange(origin, *transfer(source / origin, folder / target))
        progress("comparing what was written", 0, 0)
        _check_written(planned, folder / model.model)
        (folder / EXCISED).parent.mkdir(exist_ok=True)
        write_excised(planned.plan, folder / EXCISED)
        write_card(planned.plan, folder / place(CARD), folder / CARD)
        for name in (EXCISED, CARD):
            files[name] = FileChange(None, None, hash_file(folder / name))
        record = _record(planned, splices, dict(sorted(files.items())), left_out)
        (folder / RECORD).write_bytes(record.to_bytes())
        progress("flushing to disk", 0, 0)
    return record


def _check_output(planned: OnnxPlan, output: Path, *, force: bool) -> None:
    # Beside the file is a fine place: a folder with an ONNX file need not be a model's own.
    folder = planned.model.graph.path.parent.resolve()
    if output.resolve() in (folder, *folder.parents):
        raise OutputError(f"-o {output}: holds the source; name a place elsewhere")
    check_output(output, planned.model.graph.path, force=force)


def _data_files(planned: OnnxPlan) -> Iterator[TensorFile]:
    """Yield every file of the model, those without a tensor that could be edited among them."""
    graph = planned.model.graph
    known = {file.path: file for file in tensor_files(graph)}
    for path in (graph.path, *(graph.path.parent / location for location in graph.locations)):
        yield known.get(path, TensorFile(path, {}, {}))


def _write(
    planned: OnnxPlan, file: TensorFile, target: Path, splices: tuple[Splice, ...]
) -> FileChange:
    name = file.path.relative_to(planned.model.directory).as_posix()
    edits = [edit for edit in planned.plan.edits if edit.tensor in file.tensors]
    old, new = (_patch(file, [(edit, getattr(edit, part)) for edit in edits]) for part in _SIDES)
    if file.path != planned.model.graph.path or not splices:
        return FileChange(name, *transfer(file.path, target, old, new))
    after = write_pieces(spliced(file.path, splices, new), target)
    return FileChange(name, hash_file(file.path), after)


def _patch(file: TensorFile, edits: list[tuple[Edit, Any]]) -> BytePatch | None:
    slices = [Slices(edit.tensor, edit.axis, edit.dims, values) for edit, values in edits]
    return make_byte_patch(slices, file.tensors) if slices else None


def _side_files(
    planned: OnnxPlan, weights: dict[str, FileChange]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the files to copy, artifact's path to source's, and the weights that are left out."""
    root, own = planned.model.directory, planned.model.graph.path.parent
    copied, left_out = dict[str, str](), set[str]()
    for folder in dict.fromkeys((root, own)):
        for path in itertools.chain.from_iterable(folder.glob(pattern) for pattern in _COPIED):
            name = path.relative_to(root).as_posix()
            if name not in weights and may_follow(root, path):
                copied[place(name)] = name
        if planned.model.config:  # else the folder may be anybody's, and its files no business
            names = (p.relative_to(root).as_posix() for p in folder.iterdir() if p.is_file())
            left_out.update(n for n in names if is_twin(Path(n).name) and n not in weights)
    return dict(sorted(copied.items())), tuple(sorted(left_out))


def _record(
    planned: OnnxPlan,
    splices: tuple[Splice, ...],
    files: dict[str, FileChange],
    left_out: tuple[str, ...],
) -> Record:
    model, plan, graph = planned.model, planned.plan, planned.model.graph
    undo = inverse(splices, graph.path)
    homes = {name: file.path for file in model.files for name in file.tensors}
    return Record(
        surgeon=__version__,
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        model=model.name,
        revision=model.revision,
        architecture=model.family.name,
        weights=tuple(
            file.path.relative_to(model.directory).as_posix() for file in _data_files(planned)
        ),
        converted_from=(),
        recipe=plan.recipe.to_json(),
        dims=plan.dims,
        notes=plan.notes,
        hidden_size=model.hidden_size,
        parameters_changed=plan.parameters_changed,
        parameters_total=model.parameters_total,
        edits=tuple(
            edit_record(
                edit,
                homes.get(edit.tensor, graph.path).relative_to(model.directory).as_posix(),
            )
            for edit in plan.edits
        ),
        left_out=left_out,
        sites_pattern=model.sites_pattern,
        left_out_because=dict.fromkeys(left_out, "weights"),
        files=files,
        onnx_patch=OnnxPatch(
            model=model.model,
            inferred=model.inferred,
            splits=tuple(
                SplitRecord(
                    split.tensor,
                    split.copy,
                    tuple(graph.nodes[number].name for number, _ in split.uses),
                )
                for split in planned.splits
            ),
            undo=tuple(Undo(s.start, s.length, s.content.hex()) for s in undo),
        ),
    )


def _check_written(planned: OnnxPlan, path: Path) -> None:
    """Check that nothing but the planned scalars and the splits' inputs differs."""
    before, after = planned.model.graph, read_file_graph(path)
    if len(before.nodes) != len(after.nodes):
        raise CheckpointError(f"{path.name}: the written graph has other nodes; report this")
    edited = {edit.tensor for edit in planned.plan.edits}
    with mapped(before.path) as old, mapped(path) as new:
        for number, (was, now) in enumerate(zip(before.nodes, after.nodes, strict=True)):
            if old[was.begin : was.end] == new[now.begin : now.end]:
                continue
            inputs = renamed_inputs(planned, number, was.inputs)
            meant = inputs != was.inputs or not edited.isdisjoint(was.outputs)  # a Constant's value
            if not meant or _but_for_tensors(was, inputs) != _but_for_tensors(now, now.inputs):
                raise CheckpointError(f"{path.name}: node {was.name} differs; report this")
    _check_tensors(planned, before, after)


def _but_for_tensors(node: Node, inputs: tuple[str, ...]) -> tuple[object, ...]:
    return (node.name, node.operation, inputs, node.outputs, node.attributes, node.captured)


def _check_tensors(planned: OnnxPlan, before: FileGraph, after: FileGraph) -> None:
    old, new = ({n: f for f in tensor_files(g) for n in f.tensors} for g in (before, after))
    edits = {edit.tensor: edit for edit in planned.plan.edits}
    if new.keys() != old.keys() | planned.origins.keys():
        raise CheckpointError(f"{after.path.name}: the written graph has other tensors; report it")
    for name, file in new.items():
        origin, edit = planned.origins.get(name, name), edits.get(name)
        if edit is None:
            pairs = zip(old[origin].pieces(origin), file.pieces(name), strict=True)
            same = all(was == now for was, now in pairs)
        else:
            expected = with_slices(old[origin].read(origin), edit.axis, edit.dims, edit.new)
            same = expected.tobytes() == file.read(name).tobytes()
        if not same:
            raise CheckpointError(f"{after.path.name}: tensor {name} differs; report this")


def undo_splices(record: Record, name: str) -> tuple[Splice, ...]:
    """Return what takes the splits out of a file of an artifact again.

    Raises:
        CheckpointError: the record is damaged.
    """
    if record.onnx_patch is None or record.onnx_patch.model != name:
        return ()
    try:
        return tuple(
            Splice(undo.start, undo.length, bytes.fromhex(undo.content))
            for undo in record.onnx_patch.undo
        )
    except ValueError as error:
        raise CheckpointError(f"{RECORD}: its undo is not hex ({error}); it is damaged") from error


def open_patched(record: Record, artifact: Path) -> dict[str, TensorFile]:
    """Return the files of a patched ONNX model that hold tensors, by their recorded names."""
    assert record.onnx_patch is not None
    files = tensor_files(read_file_graph(artifact / record.onnx_patch.model, artifact))
    return {file.path.relative_to(artifact).as_posix(): file for file in files}
