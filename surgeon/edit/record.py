"""What was done, in the artifact itself: ``surgeon/record.json`` and the excised values."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import numpy.typing as npt

from surgeon.edit.changes import Edit, Splice, to_json
from surgeon.edit.files import EXCISED, FileState, Reason
from surgeon.edit.recipe import recipe_from_json
from surgeon.errors import CheckpointError, SelectionError
from surgeon.model.files import OWN_HASH, RECORD, SCHEMA, own_hash, read_record_fields
from surgeon.model.tensors import open_safetensors
from surgeon.ranking import Dimension, Measured
from surgeon.settings import reader
from surgeon.text import TextsUsed


@dataclass(frozen=True)
class FileChange:
    """A file of the artifact: ``source`` is its path in the source, before and after.

    ``source`` and ``before`` are None for a file that surgeon made. Where weights were converted
    from a pickle, ``source`` is the pickle and ``before`` the converted file without the edit.
    """

    source: str | None
    before: FileState | None
    after: FileState


@dataclass(frozen=True)
class SplitRecord:
    """A tensor of an ONNX file that other nodes read too: ``nodes`` read ``copy`` instead."""

    tensor: str
    copy: str
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class OnnxPatch:
    """What was done to an existing ONNX file beyond writing scalars.

    ``model`` is the file, ``inferred`` says how the operations that end a layer were found, and
    ``undo`` takes the copies of ``splits`` out of the file again.
    """

    model: str
    inferred: str
    splits: tuple[SplitRecord, ...]
    undo: tuple[Splice, ...]


@dataclass(frozen=True)
class Choice:
    """What chose the dims, and what was found of each: the fields are those of ``Ranking``."""

    method: str
    basis: str
    evidence: str
    criterion: str
    dimensions: tuple[Dimension, ...]
    measured: Measured | None = None


@dataclass(frozen=True)
class Record:
    """All that ``restore``, ``eval`` and an auditor need to know of an operation.

    Attributes:
        surgeon: the version that made it.
        created: when, in UTC.
        model: the name of the source, its Hub id where that is known.
        revision: the commit on the Hub.
        architecture: the family's name.
        weights: the names of the weight files.
        converted_from: those of the pickles that they were, in the same order.
        recipe: what was asked for, as ``Recipe.to_json`` gives it.
        dims: the dimensions that it meant here.
        hidden_size: how many there are.
        parameters_changed: how many scalars have another value.
        parameters_total: how many scalars are weights.
        edits: what became of each tensor.
        left_out: paths of the source that are not in the artifact.
        files: every file but the record, by its path.
        onnx: ``OnnxFacts`` of the ONNX half as JSON (None: there is none).
        onnx_patch: what else was done to an ONNX file, where that was edited.
        ranked_on: the texts that chose the dims, if any did: they are not to judge them too.
        sites_pattern: what a person said about the norms, if the tensor names were not enough.
        left_out_because: why each path in ``left_out`` is not here; older records leave it out.
        notes: what was asked for that the model does not have.
        choice: what the ranking said of the dims (None: they were named or drawn).
        versions: of the libraries that had a part.
        schema: of the file.
    """

    surgeon: str
    created: str
    model: str
    revision: str | None
    architecture: str
    weights: tuple[str, ...]
    converted_from: tuple[str, ...]
    recipe: Mapping[str, Any]
    dims: tuple[int, ...]
    hidden_size: int
    parameters_changed: int
    parameters_total: int
    edits: tuple[Edit, ...]
    left_out: tuple[str, ...]
    files: Mapping[str, FileChange]
    onnx: Mapping[str, Any] | None = None
    onnx_patch: OnnxPatch | None = None
    ranked_on: TextsUsed | None = None
    sites_pattern: str | None = None
    left_out_because: Mapping[str, Reason] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    choice: Choice | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    schema: int = field(default=SCHEMA)

    def __repr__(self) -> str:
        return f"<Record of {self.model}: dimensions {', '.join(map(str, self.dims))}>"

    @property
    def to_evaluate(self) -> str:
        """What evaluates an artifact that was not evaluated."""
        if self.onnx is None and self.onnx_patch is None:
            return "patch without `onnx=False`, because eval runs the ONNX half"
        return "run surgeon eval first"

    @property
    def edited_graph(self) -> str | None:
        """The ONNX file that has the edited tensors; None where safetensors files have them."""
        return inside(self.onnx_patch.model) if self.onnx_patch else None

    @property
    def splits(self) -> tuple[SplitRecord, ...]:
        """The tensors that were copied before they were edited."""
        return self.onnx_patch.splits if self.onnx_patch else ()

    def undo_splices(self, name: str) -> tuple[Splice, ...]:
        """Return what gives a file its former length, once the old values are back in it."""
        return self.onnx_patch.undo if self.onnx_patch and self.onnx_patch.model == name else ()

    def to_bytes(self) -> bytes:
        """Return the content of ``record.json``, its own hash at the end."""
        fields = to_json(self)
        return (json.dumps({**fields, OWN_HASH: own_hash(fields)}, indent=1) + "\n").encode()

    def summary(self, output: Path) -> dict[str, Any]:
        """Return the document that ``patch --json`` prints."""
        return {"output": str(output), **to_json(self)}


def read_record(artifact: str | Path) -> Record:
    """Read an artifact's record.

    Raises:
        CheckpointError: the directory is no artifact, or its record is damaged or of a newer
            schema.
    """
    artifact = Path(artifact)
    path = artifact / RECORD
    if not artifact.is_dir():
        raise CheckpointError(
            f"{artifact}: no such directory here; give that of an artifact, which hf download "
            "fetches from the Hub"
        )
    if not path.is_file():
        raise CheckpointError(
            f"{artifact}: no {RECORD} in it, so it is no artifact; make one with surgeon patch"
        )
    fields = read_record_fields(artifact)
    if (schema := fields.get("schema")) != SCHEMA:
        raise CheckpointError(
            f"{path}: its schema is {schema!r} and this surgeon reads {SCHEMA}; update surgeon"
        )
    unknown = sorted(fields.keys() - {field.name for field in dataclasses.fields(Record)})
    if unknown and OWN_HASH not in fields:  # those from before the hash have no key but these
        raise CheckpointError(f"{path}: damaged (there is no field {unknown[0]})")
    try:
        recipe_from_json(fields.get("recipe"), "recipe")
        record = reader(Record).validate_python(fields)
    except (ValueError, SelectionError) as error:  # pydantic's are ValueErrors
        raise CheckpointError(f"{path}: damaged ({str(error).splitlines()[0]})") from error
    for edit in record.edits:
        if edit.dims != record.dims:
            raise CheckpointError(
                f"{path}: damaged (its edit of {edit.tensor} is at other dimensions than it says)"
            )
    return record


def inside(name: str) -> str:
    """Return a recorded path if it stays inside its folder; a record is untrusted input.

    Raises:
        CheckpointError: it does not.
    """
    path = PurePath(name)
    if path.anchor or ".." in path.parts or not path.parts or "\0" in name:
        raise CheckpointError(f"{RECORD}: the path {name!r} leaves the folder; it is damaged")
    return name


def write_excised(edits: Iterable[Edit], path: Path) -> None:
    """Write the old values of edits, each under its tensor's name, bit for bit."""
    from safetensors.numpy import save

    # Contiguous, because the library takes an array's memory as it lies.
    path.write_bytes(save({edit.tensor: np.ascontiguousarray(edit.old) for edit in edits}))


def read_excised(artifact: Path) -> dict[str, npt.NDArray[Any]]:
    """Read the excised values: for each edited tensor, its old slices at the record's dims."""
    file = open_safetensors(artifact / EXCISED)
    return {name: file.read(name) for name in file.tensors}
