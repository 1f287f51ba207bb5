"""Is an artifact what its record says? Every hash, every edit, and one half against the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from surgeon.edit.changes import Edit, to_json
from surgeon.edit.files import FileState, inode
from surgeon.edit.plan import edits_meant
from surgeon.edit.recipe import recipe_from_json
from surgeon.edit.record import FileChange, Record, inside, read_record
from surgeon.edit.restore import open_patched, open_source, source_path, source_states
from surgeon.edit.staging import is_result
from surgeon.errors import CheckpointError, SurgeonError
from surgeon.model import Checkpoint, TensorInfo, open_checkpoint
from surgeon.model.files import RECORD
from surgeon.model.tensors import BITS
from surgeon.progress import Progress, silent


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

    def __repr__(self) -> str:
        failed = sum(not check.passed for check in self.checks)
        return f"<Verification of {self.model}: {failed} of {len(self.checks)} checks failed>"

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


def verify(artifact: str | Path, *, progress: Progress = silent) -> Verification:
    """Check an artifact against its record.

    The files are those recorded, each with its hash; with the excised values put back, the weights
    have the source's hash; the edited values are what the recipe makes of the old ones; and the
    ONNX half holds the same vectors as the safetensors half.

    Raises:
        CheckpointError: the directory is no artifact, or its record is damaged.
    """
    artifact = Path(artifact)
    record = read_record(artifact)
    checks = [*_check_files(artifact, record, progress), _check_edits(artifact, record)]
    if record.onnx is not None:
        checks.append(_check_onnx(artifact, record.onnx))
    return Verification(record.model, tuple(checks))


def _check_files(artifact: Path, record: Record, progress: Progress) -> Iterator[Check]:
    seen: dict[tuple[int, int], FileState] = {}
    for number, (name, change) in enumerate(record.files.items()):
        progress(f"hashing {name}", number, len(record.files))
        yield from _check_file(artifact, record, name, change, seen)
    paths = (p for p in artifact.rglob("*") if p.is_symlink() or not p.is_dir())
    there = {name for p in paths if not is_result(name := p.relative_to(artifact).as_posix())}
    extra = sorted(there - record.files.keys() - {RECORD})
    found = f"{len(extra)} more, {extra[0]} among them" if extra else ""
    yield Check("no file beside those recorded", passed=not extra, found=found)


def _check_file(
    artifact: Path,
    record: Record,
    name: str,
    change: FileChange,
    seen: dict[tuple[int, int], FileState],
) -> Iterator[Check]:
    """Check a file and, as restore does, that it gives back the source's.

    ``seen`` are the hashes of files that were checked, since weights have a second name.
    """
    try:
        linked = seen.get(inode(artifact / inside(name))) if change.source is None else None
        after, before = (linked, None) if linked else source_states(record, artifact, name)
        seen[inode(artifact / name)] = after
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
        patched, source = open_patched(record, artifact), open_source(artifact)
        recipe = recipe_from_json(record.recipe, RECORD)
        meant = {edit.tensor: edit for edit in reversed(edits_meant(source, recipe, record.dims))}
        wrong = [
            edit.tensor
            for edit in record.edits
            if edit.tensor not in meant or not _is_meant(edit, meant[edit.tensor], patched)
        ]
    except (SurgeonError, OSError) as error:
        return Check(name, passed=False, found=str(error))
    wrong += sorted(meant.keys() - {edit.tensor for edit in record.edits})
    found = f"{len(wrong)} tensors differ, {wrong[0]} among them" if wrong else ""
    return Check(name, passed=not wrong, found=found)


def _is_meant(recorded: Edit, edit: Edit, patched: Checkpoint) -> bool:
    # What older records call a site may differ; where it is and what was written may not.
    named = {key: getattr(recorded, key) for key in ("file", "role", "kind", "layer", "stack")}
    now = np.take(patched.read(edit.tensor), edit.dims, axis=edit.axis)
    same = to_json(dataclasses.replace(edit, **named)) == to_json(recorded)
    return same and now.tobytes() == edit.new.tobytes()


def _check_onnx(artifact: Path, recorded: Mapping[str, Any]) -> Check:
    from surgeon.onnx.facts import onnx_facts
    from surgeon.onnx.weights import find_differing

    name = "the ONNX half holds the same vectors"
    try:
        facts = onnx_facts(recorded)
        checkpoint = open_checkpoint(artifact)
        path = artifact / inside(facts.model)
        if found := find_differing(path, checkpoint, facts.vectors, facts.dtype):
            return Check(name, passed=False, found=f"{found} differs")
    except Exception as error:  # noqa: BLE001  (a damaged file may raise anything; it is the finding)
        return Check(name, passed=False, found=f"cannot be read ({error})")
    return Check(name, passed=True)


_MOST_DIMS = 64


@dataclass(frozen=True)
class TensorDifference:
    """How one tensor differs.

    ``changed`` counts scalars that differ in at least one bit; ``dims`` are the indices along
    ``axis`` that hold them all, where there are at most 64 (None: the change is spread). ``reason``
    is "values", "packed values" (several share a byte, in an order that the format leaves open),
    "dtype", "shape", "only in A" or "only in B"; any but the first counts all scalars.
    """

    name: str
    reason: str
    changed: int
    axis: int | None = None
    dims: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Comparison:
    """The differing tensors of two checkpoints, in the order of the first."""

    tensors: tuple[TensorDifference, ...]
    compared: int

    def __repr__(self) -> str:
        return f"<Comparison: {len(self.tensors):,} of {self.compared:,} tensors differ>"

    @property
    def identical(self) -> bool:
        """Whether both hold the same tensors, bit for bit."""
        return not self.tensors

    @property
    def scalars_changed(self) -> int:
        """How many scalars differ in all."""
        return sum(tensor.changed for tensor in self.tensors)

    def to_json(self) -> dict[str, Any]:
        """Return the document that ``diff --json`` prints."""
        return {
            "identical": self.identical,
            "scalars_changed": self.scalars_changed,
            "tensors_compared": self.compared,
            "tensors": [asdict(tensor) for tensor in self.tensors],
        }


def compare(a: Checkpoint, b: Checkpoint, *, progress: Progress = silent) -> Comparison:
    """Compare two checkpoints tensor by tensor, whatever files they lie in, piece by piece.

    Memory does not grow with the checkpoints.

    Raises:
        CheckpointError: a file is shorter than its header says.
    """
    names = dict.fromkeys((*a.tensors, *b.tensors))
    found = []
    for number, name in enumerate(names):
        progress(f"comparing {name}", number, len(names))
        found.append(_compare_tensor(a, b, name))
    return Comparison(tuple(filter(None, found)), len(names))


def _compare_tensor(a: Checkpoint, b: Checkpoint, name: str) -> TensorDifference | None:
    one, other = a.tensors.get(name), b.tensors.get(name)
    if one is None or other is None:
        sizes = (info.size for info in (one, other) if info is not None)
        return TensorDifference(name, "only in B" if one is None else "only in A", max(sizes))
    if one.dtype != other.dtype or one.shape != other.shape:
        reason = "dtype" if one.dtype != other.dtype else "shape"
        return TensorDifference(name, reason, max(one.size, other.size))
    pairs = _side_by_side(*(side.homes[name].pieces(name) for side in (a, b)))
    if BITS[one.dtype] < 8:
        same = all(left == right for left, right in pairs)
        return None if same else TensorDifference(name, "packed values", one.size)
    return _compare_values(one, pairs)


def _side_by_side(a: Iterator[bytes], b: Iterator[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Yield the same stretches of two sides, whose pieces differ in length by the kind of file."""
    left = right = memoryview(b"")
    while (left := left or memoryview(next(a, b""))) and (
        right := right or memoryview(next(b, b""))
    ):
        length = min(len(left), len(right))
        yield bytes(left[:length]), bytes(right[:length])  # which compare as fast as memory
        left, right = left[length:], right[length:]


def _compare_values(
    info: TensorInfo, pairs: Iterable[tuple[bytes, bytes]]
) -> TensorDifference | None:
    element = BITS[info.dtype] // 8
    changed, position = 0, 0
    touched: list[npt.NDArray[np.bool_]] = []  # a tensor without numbers may claim any shape
    for left, right in pairs:
        if left != right:
            one, other = (np.frombuffer(p, np.uint8).reshape(-1, element) for p in (left, right))
            where = position + np.flatnonzero((one != other).any(axis=1))
            changed += where.size
            touched = touched or [np.zeros(length, dtype=np.bool_) for length in info.shape]
            if touched:  # a scalar has no axis
                for flags, index in zip(touched, np.unravel_index(where, info.shape), strict=True):
                    flags[index] = True
        position += len(left) // element
    if not changed:
        return None
    counts = [int(flags.sum()) for flags in touched]
    if not counts or min(counts) > _MOST_DIMS:
        return TensorDifference(info.name, "values", changed)
    axis = counts.index(min(counts))
    dims = tuple(np.flatnonzero(touched[axis]).tolist())
    return TensorDifference(info.name, "values", changed, axis, dims)
