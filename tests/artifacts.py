"""What the tests ask of folders: their bytes, and where in them a plan's scalars lie."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from surgeon import Recipe, make_plan, open_checkpoint, write_artifact
from surgeon.edit.record import Record
from surgeon.model.files import OWN_HASH, RECORD, own_hash
from surgeon.text import Texts

_SCORE = {"dims": [3, 9], "value": 0.5, "accuracy": 0.5}
EVALUATION = {
    **dict.fromkeys(("model", "task", "title", "metric", "unit"), "name"),
    "baseline": {**_SCORE, "dims": []},
    "patched": _SCORE,
    "controls": [_SCORE, _SCORE],
    "delta": 0.1,
    "ci95": [0.0, 0.2],
    "control_range": [0.0, 0.1],
    "p_value": 0.5,
    "verdict": "intact",
    "expected": None,
    "seed": 0,
    "mask_rate": None,
    "options": {"label": "name"},
    "providers": ["CPUExecutionProvider"],
    "dataset": {
        "name": "texts",
        "sha256": "00",
        **dict.fromkeys(("examples", "tokens", "scored_tokens"), 9),
        **dict.fromkeys(("skipped", "truncated", "unknown"), 0),
    },
    "versions": {"numpy": "2"},
    "warnings": ["none"],
    "stopped_after": None,
    "dose": [{"dims": [3], "value": 0.5, "delta": 0.0, "ci95": [0.0, 0.1]}],
    "fill_ins": [{"text": "a ____", "expected": "b", "baseline": "b", "patched": "c"}],
}


def patch(
    model: Path,
    output: Path,
    /,
    *,
    onnx: bool = False,
    force: bool = False,
    dtype: str = "float32",
    standalone: bool = False,
    fresh: bool = False,
    parity: bool = True,
    **fields,
) -> Record:
    """Patch a model as a recipe's fields say; without any, dimensions 3 and 9."""
    plan = make_plan(open_checkpoint(model), Recipe(**(fields or {"dims": (3, 9)})))
    graph = {"dtype": dtype, "standalone": standalone, "fresh": fresh, "parity": parity}
    return write_artifact(plan, output, onnx=onnx, force=force, **graph)


def texts_of(lines: Iterable[str]) -> Texts:
    """Lines as the texts of an evaluation."""
    lines = tuple(lines)
    return Texts("test", lines, "\n".join(lines).encode())


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file's content by its path in the folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def copy_of(folder: Path, target: Path) -> Path:
    """Copy a folder, its large files by links: none is written in place."""

    def copy(source, copied):
        large = os.path.getsize(source) > 2**20  # noqa: PTH202
        (os.link if large else shutil.copy2)(source, copied)

    return shutil.copytree(folder, target, copy_function=copy)


def write_record(artifact: Path, record: dict) -> None:
    """Replace what an artifact's record says, and its own hash with it, as an attacker would."""
    hashed = {**record, OWN_HASH: own_hash(json.loads(json.dumps(record)))}
    (artifact / RECORD).write_text(json.dumps(hashed))


def planned_offsets(plan) -> dict[str, set[int]]:
    """The byte offsets of every planned scalar by weight file, from the files' own headers."""
    offsets: dict[str, set[int]] = {file.path.name: set() for file in plan.checkpoint.files}
    for edit in plan.edits:
        info = plan.checkpoint.tensors[edit.tensor]
        size = edit.old.dtype.itemsize
        flat = np.arange(info.size).reshape(info.shape).take(edit.dims, axis=edit.axis).ravel()
        planned = {info.start + int(i) * size + byte for i in flat for byte in range(size)}
        offsets[plan.checkpoint.homes[edit.tensor].path.name] |= planned
    return offsets


def differing_offsets(one: bytes, other: bytes) -> set[int]:
    """Where two files of one length differ."""
    assert len(one) == len(other)
    left, right = (np.frombuffer(content, np.uint8) for content in (one, other))
    return set(np.flatnonzero(left != right).tolist())
