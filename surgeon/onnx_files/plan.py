"""Recipe × ONNX file: the edits, and which tensors must be split first.

Exporters merge tensors of equal content: the bias of a norm may be the bias of a projection too.
A tensor that anything but the planned norms reads is copied under a new name for them alone, so
that the edit reaches nothing else.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from surgeon.edit.changes import Edit, Splice, with_slices
from surgeon.edit.plan import Plan, make_plan
from surgeon.edit.recipe import Recipe
from surgeon.errors import INSTEAD, OutputError, SelectionError
from surgeon.onnx.file_graph import FileGraph, Use
from surgeon.onnx.read_graph import DTYPES, mapped
from surgeon.onnx.wire import encode_field, encode_header
from surgeon.onnx_files.open_onnx import OnnxModel

_MAX_FILE = 2**31 - 1  # bytes, of a protobuf message
_NUMBERS = {name: number for number, name in DTYPES.items()}
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
            f"ONNX file the weights alone are read; {INSTEAD}, or name them with `dims`"
        )
    plan = make_plan(model.checkpoint, recipe)
    by_tensor: dict[str, list[Edit]] = {}
    for edit in plan.edits:
        by_tensor.setdefault(edit.tensor, []).append(edit)
    edits, splits, taken = [], [], set(model.graph.names)
    for tensor, same in by_tensor.items():
        edit = same[0] if len(same) == 1 else dataclasses.replace(same[0], layer=None)
        planned = {use for each in same for use in _uses(model, each)}
        packed = model.graph.tensors[tensor].packed  # its scalars have no places to be written at
        if packed or not _all_uses(model.graph, tensor) <= planned:
            split = Split(tensor, _free_name(tensor, taken), tuple(sorted(planned)))
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


def _uses(model: OnnxModel, edit: Edit) -> set[Use]:
    """Return where an edit's tensor is read as the parameter that is edited."""
    uses = set[Use | None]()
    for graph_site in model.graph_sites:
        site = graph_site.site
        found = (site.role, site.stack, site.layer, getattr(site, edit.param))
        if found == (edit.role, edit.stack, edit.layer, edit.tensor):
            uses |= {getattr(operation, edit.param) for operation in graph_site.operations}
    return {use for use in uses if use is not None}


def _all_uses(graph: FileGraph, tensor: str) -> set[Use]:
    """Return where a tensor is read; (-1, n) stands for what is no node's input."""
    uses, names = set[Use](), [tensor]
    for name in names:  # grows by what Identity nodes pass on
        for number, slot in graph.readers.get(name, ()):
            if graph.nodes[number].operation == "Identity":
                names.extend(graph.nodes[number].outputs)
            else:
                uses.add((number, slot))
    if not graph.outputs.isdisjoint(names):
        uses.add((-1, 0))
    if any(not node.captured.isdisjoint(names) for node in graph.nodes):
        uses.add((-1, 1))
    stored = graph.tensors[tensor]
    for other in (*graph.tensors.values(), *graph.others):
        overlaps = other.info.start < stored.info.end and stored.info.start < other.info.end
        if other is not stored and other.location == stored.location and overlaps:
            uses.add((-1, 2))  # two names for the same bytes of a data file
    return uses


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
