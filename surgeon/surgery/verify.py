"""Is an artifact what its record says? Every hash, every edit, and one half against the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from surgeon.checkpoint import Checkpoint, open_checkpoint
from surgeon.errors import CheckpointError, SurgeonError
from surgeon.progress import Progress, silent
from surgeon.surgery.ownership import is_result
from surgeon.surgery.plan import Edit, edits_meant
from surgeon.surgery.recipe import recipe_from_json
from surgeon.surgery.record import EditRecord, FileChange, Record, edit_record, read_record
from surgeon.surgery.restore import (
    inside,
    open_edited,
    open_source,
    source_path,
    source_states,
)
from surgeon.surgery.source_files import RECORD


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
    checks = [*_check_files(artifact, record, progress), _check_edits(artifact, record)]
    if record.onnx is not None:
        checks.append(_check_onnx(artifact, record))
    return Verification(record.model, tuple(checks))


def _check_files(artifact: Path, record: Record, progress: Progress) -> Iterator[Check]:
    for number, (name, change) in enumerate(record.files.items()):
        progress(f"hashing {name}", number, len(record.files))
        yield from _check_file(artifact, record, name, change)
    paths = (p for p in artifact.rglob("*") if p.is_symlink() or not p.is_dir())
    there = {name for p in paths if not is_result(name := p.relative_to(artifact).as_posix())}
    extra = sorted(there - record.files.keys() - {RECORD})
    found = f"{len(extra)} more, {extra[0]} among them" if extra else ""
    yield Check("no file beside those recorded", passed=not extra, found=found)


def _check_file(artifact: Path, record: Record, name: str, change: FileChange) -> Iterator[Check]:
    """Check a file and, as restore does, that it gives back the source's."""
    try:
        after, before = source_states(record, artifact, name)
        if change.source is not None:
            source_path(record, name, change.source)
    except (CheckpointError, OSError) as error:
        yield Check(name, passed=False, found=str(error))
        return
    same = after == change.after
    yield Check(name, passed=same, found="" if same else "not the recorded file")
    restored = change.source is None or before == change.before
    if name in record.weights or not restored:
        found = "" if restored else "the old values put back do not give the source"
        yield Check(f"{name} restores to the source", passed=restored, found=found)


def _check_edits(artifact: Path, record: Record) -> Check:
    """Check that the record's edits are those of its recipe, and what the weights hold."""
    name = "the edits are what the recipe says"
    try:
        patched, source = open_edited(record, artifact), open_source(artifact)
        recipe = recipe_from_json(record.recipe, RECORD)
        meant = {edit.tensor: edit for edit in reversed(edits_meant(source, recipe, record.dims))}
        wrong = [
            edit.tensor
            for edit in record.edits
            if not _is_meant(edit, meant.get(edit.tensor), patched)
        ]
    except (SurgeonError, OSError) as error:
        return Check(name, passed=False, found=str(error))
    wrong += sorted(meant.keys() - {edit.tensor for edit in record.edits})
    found = f"{len(wrong)} tensors differ, {wrong[0]} among them" if wrong else ""
    return Check(name, passed=not wrong, found=found)


def _is_meant(recorded: EditRecord, edit: Edit | None, patched: Checkpoint) -> bool:
    if edit is None:
        return False
    # What older records call a site may differ; where it is and what was written may not.
    named = {key: getattr(recorded, key) for key in ("role", "kind", "layer", "stack")}
    now = np.take(patched.read(edit.tensor), edit.dims, axis=edit.axis)
    made = dataclasses.replace(edit_record(edit, recorded.file), **named)
    return made == recorded and now.tobytes() == edit.new.tobytes()


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
