"""An artifact opened for evaluation: its record, its graph, and the values to swap in it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from surgeon.edit.artifact import old_values, read_edited
from surgeon.edit.changes import with_slices
from surgeon.edit.recipe import new_values
from surgeon.edit.record import (
    Record,
    inside,
    read_excised,
    read_record,
)
from surgeon.edit.selection import draw_dims
from surgeon.edit.source_files import EXCISED
from surgeon.edit.transfer import hash_file
from surgeon.errors import EvaluationError, suggesting
from surgeon.evaluation.probe_graph import try_out
from surgeon.model.checkpoint import CONFIG
from surgeon.onnx.facts import (
    Dtype,
    OnnxFacts,
    onnx_facts,
)
from surgeon.onnx.read_graph import read_file_graph
from surgeon.onnx.weights import read_initializers
from surgeon.onnx_files.foreign import read_foreign_facts
from surgeon.tasks.sizes import check_tokenizer
from surgeon.tasks.tokenizer import read_tokenizer
from surgeon.torch_model.directory import GENERATION_CONFIG

if TYPE_CHECKING:
    from tokenizers import Tokenizer


# What tells how a graph from elsewhere is to be fed and scored.
_TELLING = (
    CONFIG,
    GENERATION_CONFIG,
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)


@dataclass(frozen=True, eq=False)
class Artifact:
    """A patched model, with the edited tensors as they are and as they were.

    ``patched`` and ``baseline`` hold whole tensors in the checkpoint's dtype, under their
    checkpoint names.
    """

    directory: Path
    record: Record
    facts: OnnxFacts
    patched: dict[str, npt.NDArray[Any]]
    baseline: dict[str, npt.NDArray[Any]]

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
        known = self.facts.tokenizer
        if known is None or known.kind == "tokenizers":
            return read_tokenizer(self.directory, known)
        from surgeon.torch_model.tokenizer import load_tokenizer, text_encoder

        with suggesting("install what it needs, or patch again"):
            loaded = load_tokenizer(self.directory)
        if loaded is None:
            raise EvaluationError(f"{self.directory / known.file}: missing; patch again")
        return text_encoder(loaded)


def open_artifact(directory: Path) -> Artifact:
    """Open an artifact and rebuild its baseline from the excised values.

    Raises:
        CheckpointError: the directory is no artifact.
        EvaluationError: it has no ONNX half, or a file that the evaluation rests on was changed
            after the patch.
    """
    record = read_record(directory)
    if record.edited_graph is not None:
        return _open_foreign(directory, record, record.edited_graph)
    if record.onnx is None:
        raise EvaluationError(
            f"{directory}: was made with --no-onnx and eval runs the ONNX half; patch without it"
        )
    facts = _facts(directory, record)
    for name in (facts.model, EXCISED):
        _check_unchanged(directory, record, name)
    _check_tokenizer(directory, facts)
    edited = [edit.tensor for edit in record.edits]
    return _opened(directory, record, facts, read_initializers(directory / facts.model, edited))


def _open_foreign(directory: Path, record: Record, model: str) -> Artifact:
    """Open what was made of an ONNX file, whose graph tells what it can be scored on."""
    beside = (name for name in record.files if PurePosixPath(name).name in _TELLING)
    for name in dict.fromkeys((model, *record.weights, EXCISED, *beside)):
        _check_unchanged(directory, record, inside(name))
    for name in record.weights:
        old_values(record, directory, name)  # refuses a record that does not fit the weights
    stored = read_edited(record, directory)
    dtypes = sorted({values.dtype.name for values in stored.values()})
    if dtypes not in (["float32"], ["float16"]):
        raise EvaluationError(
            f"{directory}: its edited tensors are of {' and '.join(dtypes)}, and evaluation takes "
            "a graph of float32 or of float16"
        )
    dtype: Dtype = "float32" if dtypes == ["float32"] else "float16"
    facts = read_foreign_facts(directory, model, dtype)
    _check_tokenizer(directory, facts)
    facts = try_out(directory, facts)
    return _opened(directory, record, facts, stored)


def _opened(
    directory: Path, record: Record, facts: OnnxFacts, stored: Mapping[str, npt.NDArray[Any]]
) -> Artifact:
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
    return Artifact(directory, record, facts, patched, baseline)


def _facts(directory: Path, record: Record) -> OnnxFacts:
    try:
        return onnx_facts(record.onnx or {})
    except ValueError as error:
        raise EvaluationError(f"{directory}: the record's ONNX part is damaged") from error


def _check_tokenizer(directory: Path, facts: OnnxFacts) -> None:
    rows = read_file_graph(directory / facts.model).rows_picked_by("input_ids")
    if rows is not None and facts.tokenizer is not None:
        check_tokenizer((directory / facts.tokenizer.file).parent, rows, "and patch again")


def _check_unchanged(directory: Path, record: Record, name: str) -> None:
    path, recorded = directory / name, record.files.get(name)
    if recorded is None or not path.is_file():
        raise EvaluationError(f"{path}: missing; the artifact is incomplete, patch again")
    if hash_file(path) != recorded.after:
        raise EvaluationError(
            f"{path}: is not the file that the record describes; patch again, so that the verdict "
            "is about the recorded edit"
        )


@dataclass(frozen=True)
class Variant:
    """One model of the comparison; ``dims`` are those edited in it."""

    name: str
    dims: tuple[int, ...]


BASELINE = Variant("baseline", ())


def draw_controls(artifact: Artifact, count: int, seed: int) -> tuple[Variant, ...]:
    """Draw ``count`` different sets of as many dims as were patched, from the rest.

    Raises:
        EvaluationError: there are not that many sets.
    """
    dims, hidden = artifact.record.dims, artifact.record.hidden_size
    possible = math.comb(hidden - len(dims), len(dims))
    if not 1 <= count <= possible:
        raise EvaluationError(
            f"--controls {count}: give a number from 1 to {possible}; a verdict needs controls, "
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


def tensors_of(artifact: Artifact, variant: Variant) -> dict[str, npt.NDArray[np.floating[Any]]]:
    """Return the edited tensors as they are in a variant, in the graph's dtype.

    A control repeats the recipe's operation at its own dims, in the same tensors, in the
    checkpoint's own dtype.
    """
    dtype = np.dtype(artifact.facts.dtype)
    return {name: value.astype(dtype) for name, value in _edited(artifact, variant)}


def _edited(artifact: Artifact, variant: Variant) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    record = artifact.record
    if variant.dims == record.dims:
        yield from artifact.patched.items()
        return
    mode, factor = record.recipe["mode"], record.recipe["factor"]
    for edit in record.edits:
        tensor = artifact.baseline[edit.tensor]
        if variant.dims:
            values = new_values(tensor, edit.axis, variant.dims, mode, factor, edit.offset)
            tensor = with_slices(tensor, edit.axis, variant.dims, values)
        yield edit.tensor, tensor
