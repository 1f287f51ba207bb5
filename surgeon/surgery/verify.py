"""Is an artifact what its record says? Every hash, every edit, and one half against the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from surgeon.checkpoint import open_checkpoint
from surgeon.errors import CheckpointError
from surgeon.progress import Progress, silent
from surgeon.surgery.byte_patch import BytePatch
from surgeon.surgery.modes import new_values
from surgeon.surgery.onnx_patch import open_patched, undo_splices
from surgeon.surgery.ownership import is_result
from surgeon.surgery.record import EditRecord, Record, read_excised, read_record
from surgeon.surgery.restore import inside, old_values
from surgeon.surgery.slices import with_slices
from surgeon.surgery.source_files import RECORD
from surgeon.surgery.splices import Splice, hash_pieces, spliced
from surgeon.surgery.transfer import FileState, hash_as_if, hash_file


@dataclass(frozen=True)
class Check:
    """One check: what was looked at, whether it holds, and if not, what was found."""

    name: str
    passed: bool
    found: str = ""


@dataclass(frozen=True)
class Verification:
    """All checks of an artifact."""

    model: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check holds."""
        return all(check.passed for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """Return the document that ``verify --json`` prints."""
        return {
            "model": self.model,
            "passed": self.passed,
            "checks": [asdict(check) for check in self.checks],
        }


def verify(artifact: Path, progress: Progress = silent) -> Verification:
    """Check an artifact against its record.

    The files are those recorded, each with its hash; with the excised values put back, the weights
    have the source's hash; the edited values are what the recipe makes of the old ones; and the
    ONNX half holds the same vectors as the safetensors half.

    Raises:
        CheckpointError: the directory is no artifact, or its record is damaged.
    """
    record = read_record(artifact)
    checks = [*_check_files(artifact, record, progress), *_check_edits(artifact, record)]
    if record.onnx is not None:
        checks.append(_check_onnx(artifact, record))
    return Verification(record.model, tuple(checks))


def _check_files(artifact: Path, record: Record, progress: Progress) -> Iterator[Check]:
    for number, (name, change) in enumerate(record.files.items()):
        progress(f"hashing {name}", number, len(record.files))
        path = artifact / inside(name)
        if not path.is_file():
            yield Check(name, passed=False, found="missing")
        elif hash_file(path) != change.after:
            yield Check(name, passed=False, found="not the recorded file")
        else:
            yield Check(name, passed=True)
    paths = (p for p in artifact.rglob("*") if p.is_symlink() or not p.is_dir())
    there = {name for p in paths if not is_result(name := p.relative_to(artifact).as_posix())}
    extra = sorted(there - record.files.keys() - {RECORD})
    found = f"{len(extra)} more, {extra[0]} among them" if extra else ""
    yield Check("no file beside those recorded", passed=not extra, found=found)


def _check_edits(artifact: Path, record: Record) -> Iterator[Check]:
    try:
        read, excised = _reader(artifact, record), read_excised(artifact)
        for name in record.weights:
            patch = old_values(record, artifact, name)
            state = _state_of_source(artifact / inside(name), patch, undo_splices(record, name))
            restored = state == record.files[name].before
            found = "" if restored else "the old values put back do not give the source"
            yield Check(f"{name} restores to the source", passed=restored, found=found)
        wrong = [
            edit.tensor
            for edit in record.edits
            if not _is_what_the_recipe_says(edit, record, read(edit.tensor), excised)
        ]
    except (CheckpointError, KeyError, OSError) as error:
        yield Check("the edits", passed=False, found=str(error))
        return
    found = f"{len(wrong)} tensors differ, {wrong[0]} among them" if wrong else ""
    yield Check("the edits are what the recipe says", passed=not wrong, found=found)


def _reader(artifact: Path, record: Record) -> Callable[[str], Any]:
    """Return what reads the artifact's tensors by name."""
    if record.onnx_patch is None:
        return open_checkpoint(artifact).read
    inside(record.onnx_patch.model)
    homes = {n: file for file in open_patched(record, artifact).values() for n in file.tensors}
    return lambda name: homes[name].read(name)


def _state_of_source(path: Path, patch: BytePatch | None, undo: Sequence[Splice]) -> FileState:
    return hash_pieces(spliced(path, undo, patch)) if undo else hash_as_if(path, patch)


def _is_what_the_recipe_says(
    edit: EditRecord, record: Record, tensor: Any, excised: dict[str, Any]
) -> bool:
    before = with_slices(tensor, edit.axis, edit.dims, excised[edit.tensor])
    mode, factor = record.recipe["mode"], record.recipe["factor"]
    planned = new_values(before, edit.axis, edit.dims, mode, factor, edit.offset)
    now = np.take(tensor, edit.dims, axis=edit.axis)
    return planned.tobytes() == np.ascontiguousarray(now).tobytes()


def _check_onnx(artifact: Path, record: Record) -> Check:
    from surgeon.onnx_model.facts import onnx_facts
    from surgeon.onnx_model.weights import read_initializers

    name = "the ONNX half holds the same vectors"
    try:
        facts = onnx_facts(record.onnx or {})
        checkpoint = open_checkpoint(artifact)
        for vector, values in read_initializers(
            artifact / inside(facts.model), facts.vectors
        ).items():
            if values.tobytes() != checkpoint.read(vector).astype(facts.dtype).tobytes():
                return Check(name, passed=False, found=f"{vector} differs")
    except Exception as error:  # noqa: BLE001  (a damaged file may raise anything; it is the finding)
        return Check(name, passed=False, found=f"cannot be read ({error})")
    return Check(name, passed=True)
