"""ONNX file → artifact: the file with the planned scalars in it, its data files, and the record.

The graph is not re-serialised. A scalar is written at its offset; only a split adds bytes, and the
record keeps what undoes that, so that ``restore`` gives back the source byte for byte.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

from surgeon.edit.changes import inverse, with_slices
from surgeon.edit.record import OnnxPatch, Record, SplitRecord
from surgeon.edit.source_files import SourceFiles, is_duplicate_weights, place
from surgeon.edit.write import write_artifact
from surgeon.errors import CheckpointError
from surgeon.model.files import may_follow
from surgeon.onnx.file_graph import FileGraph, Node
from surgeon.onnx.read_graph import mapped, read_file_graph
from surgeon.onnx.tensor_files import tensor_files
from surgeon.onnx_files.open_onnx import OnnxModel
from surgeon.onnx_files.plan import OnnxPlan, split_splices
from surgeon.progress import Progress, silent

# What belongs to a model beside its weights. A folder with an ONNX file may hold anything else.
_COPIED = (
    "config.json", "generation_config.json", "*tokenizer*.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt", "*.model", "ort_config.json",
    "preprocessor_config.json", "modules.json", "sentence_*_config.json",
    "config_sentence_transformers.json", "1_Pooling/config.json", "README.md", "LICENSE*",
)  # fmt: skip


def write_onnx_artifact(
    planned: OnnxPlan, output: str | Path, *, force: bool = False, progress: Progress = silent
) -> Record:
    """Make the artifact that a plan for an ONNX file describes.

    Afterwards the written graph is compared with the source's, node by node and tensor by tensor.

    Args:
        planned: what to do.
        output: the directory to make. It appears whole, or not at all.
        force: whether an output that exists is replaced.
        progress: called at each step.

    Raises:
        OutputError: the output cannot be made there.
        CheckpointError: the source changed while it was read.
    """
    output = Path(output)
    model, nodes = planned.model, planned.model.graph.nodes
    splices = split_splices(planned)
    splits = tuple(
        SplitRecord(split.tensor, split.copy, tuple(nodes[number].name for number, _ in split.uses))
        for split in planned.splits
    )
    undo = inverse(splices, model.graph.path)
    onnx_patch = OnnxPatch(model.file, model.inferred, splits, undo)
    return write_artifact(
        replace(planned.plan, splices={model.file: splices}, onnx_patch=onnx_patch),
        output,
        onnx=False,
        sources=_side_files(model),
        check=lambda folder: _check_written(planned, folder / model.file),
        force=force,
        progress=progress,
    )


def _side_files(model: OnnxModel) -> SourceFiles:
    """Return the files to take over beside the ONNX file and its data."""
    checkpoint = model.checkpoint
    root, own = checkpoint.directory, model.graph.path.parent
    weights = {file.path.relative_to(root).as_posix() for file in checkpoint.files}
    copied, left_out = dict[str, str](), set[str]()
    for folder in dict.fromkeys((root, own)):
        for path in itertools.chain.from_iterable(folder.glob(pattern) for pattern in _COPIED):
            name = path.relative_to(root).as_posix()
            if name not in weights and may_follow(root, path):
                copied[place(name)] = name
        if checkpoint.config:  # else the folder may be anybody's, and its files no business
            files = (path for path in folder.iterdir() if path.is_file())
            names = {p.relative_to(root).as_posix() for p in files if is_duplicate_weights(p.name)}
            left_out |= names - weights
    return SourceFiles(dict(sorted(copied.items())), dict.fromkeys(sorted(left_out), "weights"))


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
            inputs = planned.inputs_of(number)
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
