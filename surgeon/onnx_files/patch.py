"""Recipe × ONNX file → the edits, and the artifact: the file with the planned scalars in it.

Exporters merge tensors of equal content: the bias of a norm may be the bias of a projection too.
A tensor that anything but the planned norms reads is copied under a new name for them alone, so
that the edit reaches nothing else. The graph is not re-serialised: a scalar is written at its
offset, only a split adds bytes, and the record keeps what undoes that, for ``restore``.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from surgeon.edit.changes import Edit, Splice, inverse, with_slices
from surgeon.edit.files import SourceFiles, is_duplicate_weights, path_of_copy
from surgeon.edit.plan import Plan, make_plan
from surgeon.edit.recipe import PARAMS, Recipe
from surgeon.edit.record import OnnxPatch, Record, SplitRecord
from surgeon.edit.write import write_artifact
from surgeon.errors import WEIGHTS_ONLY, CheckpointError, OutputError, SelectionError
from surgeon.families import Site
from surgeon.model.files import may_follow
from surgeon.onnx.file_graph import SAME, FileGraph, Node, Use, tensor_files
from surgeon.onnx.read_graph import ONNX_DTYPES, mapped, read_file_graph
from surgeon.onnx.wire import encode_field, encode_header
from surgeon.onnx_files.open_onnx import OnnxModel
from surgeon.progress import Progress, silent

_Key: TypeAlias = tuple[str, str, int | None, str, str | None]

_MAX_FILE = 2**31 - 1  # bytes, of a protobuf message
_NUMBERS = {name: number for number, name in ONNX_DTYPES.items()}
_INPUTS_LISTED = 4  # from this IR version on, an initializer need not be an input of the graph


@dataclass(frozen=True)
class Split:
    """A tensor that gets a copy named ``copy``, read by ``uses`` instead of it."""

    tensor: str
    copy: str
    uses: tuple[Use, ...]


@dataclass(frozen=True, eq=False)
class OnnxPlan:
    """What an operation will do to an ONNX file; an edit of a split tensor names the copy."""

    model: OnnxModel
    plan: Plan
    splits: tuple[Split, ...]

    @property
    def origins(self) -> dict[str, str]:
        """The tensor that each copy is of."""
        return {split.copy: split.tensor for split in self.splits}

    def inputs_of(self, number: int) -> tuple[str, ...]:
        """Return a node's inputs as the splits make them."""
        renamed = {use: split.copy for split in self.splits for use in split.uses}
        names = self.model.graph.nodes[number].inputs
        return tuple(renamed.get((number, slot), name) for slot, name in enumerate(names))


def make_onnx_plan(model: OnnxModel, recipe: Recipe) -> OnnxPlan:
    """Resolve a recipe on an ONNX file. Nothing is written.

    A tensor that several layers share is edited once, in the name of the first of them. One in
    ``int32_data`` gets a copy too, of raw bytes.

    Raises:
        SelectionError: a dimension, layer or site is not there, or too few dimensions meet the
            criterion.
        CheckpointError: a tensor cannot be edited exactly.
    """
    if recipe.remove_outliers and recipe.method is None:
        raise SelectionError(
            f"`remove_outliers` {recipe.remove_outliers}: measures what removals do, and of an "
            f"ONNX file the weights alone are read; {WEIGHTS_ONLY}, or name them with `dims`"
        )
    plan = make_plan(model.checkpoint, recipe)
    by_tensor: dict[str, list[Edit]] = {}
    for edit in plan.edits:
        by_tensor.setdefault(edit.tensor, []).append(edit)
    edits, splits, taken, uses = [], [], set(model.graph.names), _uses(model)
    for tensor, same in by_tensor.items():
        edit = same[0] if len(same) == 1 else dataclasses.replace(same[0], layer=None)
        planned = {use for each in same for use in uses[_key(each, each.param, tensor)]}
        packed = model.graph.tensors[tensor].packed  # its scalars have no places to be written at
        shared = packed or tensor in model.graph.overlapping
        if shared or _reaches_others(model.graph, tensor, planned):
            places = {_before_casts(model.graph, use, planned) for use in planned}
            split = Split(tensor, _free_name(tensor, taken), tuple(sorted(places)))
            taken.add(split.copy)
            splits.append(split)
            edit = dataclasses.replace(edit, tensor=split.copy, file=model.file)
        edits.append(edit)
    return OnnxPlan(model, dataclasses.replace(plan, edits=tuple(edits)), tuple(splits))


def split_splices(planned: OnnxPlan) -> tuple[Splice, ...]:
    """Return the changes of the ONNX file that make the splits, with the new values in them.

    Raises:
        OutputError: the file would outgrow what protobuf can hold.
    """
    if not planned.splits:
        return ()
    graph = planned.model.graph
    numbers = sorted({number for split in planned.splits for number, _ in split.uses})
    splices = [_renamed(planned, number) for number in numbers]
    added = b"".join(_initializer(planned, split) for split in planned.splits)
    splices.append(Splice(graph.span.end, 0, added))
    growth = sum(len(splice.content) - splice.length for splice in splices)
    length = graph.span.end - graph.span.begin + growth
    if graph.path.stat().st_size + growth > _MAX_FILE:
        raise OutputError(
            f"{graph.path}: with {len(added):,} bytes of copies it would be beyond protobuf's "
            "2 GiB; save it with external data first"
        )
    header = encode_header(7, length)
    splices.append(Splice(graph.span.start, graph.span.begin - graph.span.start, header))
    return tuple(splices)


def _uses(model: OnnxModel) -> dict[_Key, set[Use]]:
    """Return where each tensor is read as the parameter of a site."""
    found: dict[_Key, set[Use]] = defaultdict(set)
    for graph_site in model.graph_sites:
        for param in PARAMS:
            key = _key(graph_site.site, param, getattr(graph_site.site, param))
            uses = (getattr(operation, param) for operation in graph_site.operations)
            found[key].update(use for use in uses if use is not None)
    return found


def _key(place: Site | Edit, param: str, tensor: str | None) -> _Key:
    return place.role, place.stack, place.layer, param, tensor


def _reaches_others(graph: FileGraph, value: str, planned: set[Use]) -> bool:
    """Whether a value, as it is or in another dtype, is read but where it is planned."""
    names = graph.aliases(value)
    for number, slot in (use for name in names for use in graph.readers.get(name, ())):
        if graph.nodes[number].operation not in SAME and (number, slot) not in planned:
            return True
    return not (graph.captured.isdisjoint(names) and graph.outputs.isdisjoint(names))


def _before_casts(graph: FileGraph, use: Use, planned: set[Use]) -> Use:
    """Return where a copy takes a tensor's place: before the casts, as it is of the same dtype."""
    place, value = use, graph.nodes[use[0]].inputs[use[1]]
    while (node := graph.producers.get(value)) is not None and node.operation in SAME:
        if node.operation == "Cast":
            if _reaches_others(graph, node.result, planned):
                raise CheckpointError(
                    f"{graph.path}: the Cast node {node.name!r} converts {node.first} for other "
                    "nodes too; store it in the dtype that they compute in"
                )
            place = node.number, 0
        value = node.first
    return place


def _free_name(tensor: str, taken: set[str]) -> str:
    names = (f"{tensor}.split{number or ''}" for number in range(len(taken) + 1))
    return next(name for name in names if name not in taken)


def _renamed(planned: OnnxPlan, number: int) -> Splice:
    """Return the splice that gives a node its new inputs."""
    node, inputs = planned.model.graph.nodes[number], planned.inputs_of(number)
    content, position = b"", node.begin
    with mapped(planned.model.graph.path) as data:
        for field, was, now in zip(node.input_fields, node.inputs, inputs, strict=True):
            if now != was:
                content += data[position : field.start] + encode_field(1, now.encode())
                position = field.end
        content += data[position : node.end]
    return Splice(node.start, node.end - node.start, encode_field(1, content))


def _initializer(planned: OnnxPlan, split: Split) -> bytes:
    import onnx

    (edit,) = (edit for edit in planned.plan.edits if edit.tensor == split.copy)
    graph = planned.model.graph
    info = graph.tensors[split.tensor].info
    values = planned.plan.checkpoint.read(split.tensor)
    raw = with_slices(values, edit.axis, edit.dims, edit.new).tobytes()
    kind, shape = _NUMBERS[info.dtype], info.shape
    tensor = onnx.TensorProto(dims=shape, data_type=kind, name=split.copy, raw_data=raw)
    added = encode_field(5, tensor.SerializeToString())
    if graph.ir_version < _INPUTS_LISTED and split.tensor in graph.inputs:
        value = onnx.helper.make_tensor_value_info(split.copy, kind, shape)
        added += encode_field(11, value.SerializeToString())
    return added


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
                copied[path_of_copy(name)] = name
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
