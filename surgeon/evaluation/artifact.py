"""An artifact opened for evaluation: its record, its graph, and the values to swap in it."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from surgeon.edit.changes import new_values, with_slices
from surgeon.edit.files import EXCISED, hash_file
from surgeon.edit.plan import draw_dims
from surgeon.edit.record import Record, inside, read_excised, read_record
from surgeon.errors import EvaluationError, suggesting
from surgeon.model.files import is_for_loader, matches
from surgeon.onnx.facts import OnnxFacts, check_rows, onnx_facts
from surgeon.onnx.file_graph import FileGraph, tensor_files
from surgeon.onnx.read_graph import read_file_graph
from surgeon.tasks.task import Variant
from surgeon.tasks.tokenizer import read_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer


Tensors: TypeAlias = Mapping[str, npt.NDArray[Any]]

_CAST_TO = {1: "float32", 10: "float16"}  # the numbers of onnx.TensorProto.DataType

_PROSE = ("README.md", "LICENSE*", "NOTICE*")  # of what is for a loader, decides nothing


@dataclass(frozen=True, eq=False)
class Artifact:
    """A patched model, with the edited tensors as they are and as they were.

    ``patched`` and ``baseline`` hold whole tensors in the checkpoint's dtype, under their
    checkpoint names.
    """

    directory: Path
    record: Record
    facts: OnnxFacts
    patched: Tensors
    baseline: Tensors

    @property
    def name(self) -> str:
        """The model that was patched."""
        return self.record.model

    @property
    def model_path(self) -> Path:
        """The ONNX file."""
        return self.directory / self.facts.model

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, without its own padding and truncation.

        Raises:
            EvaluationError: there is none, or it cannot be read.
        """
        return tokenizer_of(self.directory, self.facts)

    def tensors(self, variant: Variant) -> dict[str, npt.NDArray[Any]]:
        """Return the edited tensors as they are in a variant, in the graph's dtype.

        A control repeats the recipe's operation at its own dims, in the same tensors, in the
        checkpoint's own dtype.
        """
        tensors = dict(self.patched if variant.dims == self.record.dims else self.baseline)
        if variant.dims not in ((), self.record.dims):
            mode, factor = self.record.recipe["mode"], self.record.recipe["factor"]
            for edit in self.record.edits:
                name, axis = edit.tensor, edit.axis
                tensor = tensors[name]
                new = new_values(name, tensor, axis, variant.dims, mode, factor, edit.offset)
                tensors[name] = with_slices(tensor, axis, variant.dims, new)
        return {name: value.astype(self.facts.dtype) for name, value in tensors.items()}


def tokenizer_of(directory: Path, facts: OnnxFacts, *, sides: bool = False) -> Tokenizer:
    """Read an artifact's tokenizer, without its own padding and truncation.

    With ``sides`` it is transformers' own, which writes a target as the model was trained on it.

    Raises:
        EvaluationError: there is none, or it cannot be read.
    """
    known = facts.tokenizer
    if known is None or (known.kind == "tokenizers" and not sides):
        return read_tokenizer(directory, known)
    from surgeon.torch_model.tokenizer import load_tokenizer, text_encoder

    with suggesting("install what it needs, or patch again"):
        loaded = load_tokenizer(directory)
    if loaded is None:
        raise EvaluationError(f"{directory / known.file}: missing; patch again")
    return text_encoder(loaded, sides=sides)


def open_artifact(directory: Path) -> Artifact:
    """Open an artifact and rebuild its baseline from the excised values.

    Raises:
        CheckpointError: the directory is no artifact.
        EvaluationError: it has no ONNX half, or a file that the evaluation rests on was changed
            after the patch.
    """
    record = read_record(directory)
    recorded = _recorded_facts(directory, record)
    model = recorded.model if recorded else str(record.edited_graph)
    for name in (model, EXCISED, *(() if recorded else record.weights), *_deciding(record)):
        _check_unchanged(directory, record, inside(name))
    graph = read_file_graph(directory / model, directory)
    for location in graph.locations if recorded else ():
        _check_unchanged(directory, record, (PurePosixPath(model).parent / location).as_posix())
    homes = {name: file for file in tensor_files(graph) for name in file.tensors}
    names = [edit.tensor for edit in record.edits]
    stored = {name: homes[name].read(name) for name in names if name in homes}
    patched, baseline = _with_old_values(directory, record, stored)
    facts = recorded or _inferred_facts(directory, model, graph, stored)
    check_rows(directory, facts, graph)
    return Artifact(directory, record, facts, patched, baseline)


def _deciding(record: Record) -> Iterator[str]:
    """Yield the files by which examples become tokens and outputs become scores."""
    for path in record.files:
        name = PurePosixPath(path).name
        if is_for_loader(name) and not matches(name, _PROSE):
            yield path


def _recorded_facts(directory: Path, record: Record) -> OnnxFacts | None:
    """Return what the export recorded of its graph; None of a graph from elsewhere."""
    if record.edited_graph is not None:
        return None
    if record.onnx is None:
        raise EvaluationError(f"{directory}: has no ONNX half; {record.to_evaluate}")
    try:
        return onnx_facts(record.onnx)
    except ValueError as error:
        raise EvaluationError(f"{directory}: the record's ONNX part is damaged") from error


def _inferred_facts(directory: Path, model: str, graph: FileGraph, stored: Tensors) -> OnnxFacts:
    dtypes = sorted({_computes_in(graph, name, values) for name, values in stored.items()})
    if dtypes not in (["float32"], ["float16"]):
        raise EvaluationError(
            f"{directory}: its edited tensors are of {' and '.join(dtypes)}, and evaluation takes "
            "a graph of float32 or of float16"
        )
    # Loaded by name, as a plug-in is: what knows graphs from elsewhere is not part of the core.
    annex = importlib.import_module("surgeon.onnx_files.foreign_graph")
    facts: OnnxFacts = annex.infer_facts(directory, model, dtypes[0])
    return facts


def _computes_in(graph: FileGraph, name: str, values: npt.NDArray[Any]) -> str:
    """Return the dtype in which a graph computes with a tensor, which may be stored in another."""
    readers = [graph.nodes[number] for number, _ in graph.readers.get(name, ())]
    casts = [node.attributes.get("to", 0) for node in readers if node.operation == "Cast"]
    return _CAST_TO.get(casts[0], "another type") if casts else values.dtype.name


def _check_unchanged(directory: Path, record: Record, name: str) -> None:
    path, recorded = directory / name, record.files.get(name)
    if recorded is None or not path.is_file():
        raise EvaluationError(f"{path}: missing; the artifact is incomplete, patch again")
    if hash_file(path) != recorded.after:
        raise EvaluationError(
            f"{path}: is not the file that the record describes; patch again, so that the verdict "
            "is about the recorded edit"
        )


def _with_old_values(
    directory: Path, record: Record, stored: Tensors
) -> tuple[dict[str, npt.NDArray[Any]], dict[str, npt.NDArray[Any]]]:
    """Return the edited tensors in the checkpoint's dtype, as they are and as they were."""
    excised = read_excised(directory)
    patched, baseline = {}, {}
    for edit in record.edits:
        tensor, old = stored.get(edit.tensor), excised.get(edit.tensor)
        if (
            tensor is None
            or old is None
            or not edit.fits(tensor.shape, old.shape)
            or tensor.shape[edit.axis] != record.hidden_size
        ):
            raise EvaluationError(
                f"{directory}: the record's edit of {edit.tensor} does not fit the weights; the "
                "artifact is damaged"
            )
        # A float32 graph holds every value of a narrower dtype exactly, one in float16 the rounded.
        patched[edit.tensor] = tensor.astype(old.dtype)
        baseline[edit.tensor] = with_slices(patched[edit.tensor], edit.axis, edit.dims, old)
    return patched, baseline


def draw_controls(artifact: Artifact, count: int, seed: int) -> tuple[Variant, ...]:
    """Draw ``count`` different sets of as many dims as were patched, from the rest.

    Raises:
        EvaluationError: there are not that many sets.
    """
    dims, hidden = artifact.record.dims, artifact.record.hidden_size
    possible = math.comb(hidden - len(dims), len(dims))
    if not 1 <= count <= possible:
        raise EvaluationError(
            f"`controls` {count}: give a number from 1 to {possible}; a verdict needs controls, "
            f"and {len(dims)} of {hidden} dimensions are patched"
        )
    rng = np.random.default_rng([seed, len(dims)])
    drawn: dict[tuple[int, ...], None] = {}
    while len(drawn) < count:
        drawn[draw_dims(hidden, len(dims), rng, without=dims)] = None
    return tuple(Variant(f"control {i}", chosen) for i, chosen in enumerate(drawn, start=1))


def draw_doses(artifact: Artifact) -> tuple[Variant, ...]:
    """Return the removal of the first of the patched dims, of the first two, and so on to all."""
    dims = artifact.record.dims
    return tuple(Variant(f"dose {n}", dims[:n]) for n in range(1, len(dims) + 1))
