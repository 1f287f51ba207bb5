"""What the tests ask of folders and change in them: bytes, records, settings, tensors."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from surgeon import (
    Checkpoint,
    Plan,
    Recipe,
    make_onnx_plan,
    make_plan,
    open_checkpoint,
    open_onnx,
    restore,
    verify,
    write_artifact,
    write_onnx_artifact,
)
from surgeon.edit.files import hash_file
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
    model: Path | Checkpoint,
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
    graph = {"dtype": dtype, "standalone": standalone, "fresh": fresh, "parity": parity}
    return write_artifact(plan_of(model, **fields), output, onnx=onnx, force=force, **graph)


def plan_of(model: Path | Checkpoint, /, **fields) -> Plan:
    """Plan what a recipe's fields say; without any, to zero dimensions 3 and 9."""
    checkpoint = model if isinstance(model, Checkpoint) else open_checkpoint(model)
    return make_plan(checkpoint, Recipe(**(fields or {"dims": (3, 9)})))


def patch_onnx(path: Path, output: Path, sites_pattern: str | None = None, **fields) -> Record:
    """Patch an ONNX file as a recipe's fields say; without any, dimensions 3 and 9."""
    recipe = Recipe(**{"dims": (3, 9), **fields})
    return write_onnx_artifact(make_onnx_plan(open_onnx(path, sites_pattern), recipe), output)


def texts_of(lines: Iterable[str]) -> Texts:
    """Lines as the texts of an evaluation."""
    lines = tuple(lines)
    return Texts("test", lines, "\n".join(lines).encode())


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file's content by its path in the folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def assert_undone(artifact: Path, source: Path) -> None:
    """An artifact passes every check, and restore makes of it the source's files and no other."""
    assert verify(artifact).passed
    back = artifact.with_name(f"{artifact.name} undone")
    restore(artifact, back)
    assert files_of(back) == files_of(source)


def flip_bit(path: Path, at: int = -1) -> None:
    """Change one bit of a file, in its last byte if none is given."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def copy_of(folder: Path, target: Path) -> Path:
    """Copy a folder, its large files by links: none is written in place."""

    def copy(source, copied):
        large = os.path.getsize(source) > 2**20  # noqa: PTH202
        (os.link if large else shutil.copy2)(source, copied)

    return shutil.copytree(folder, target, copy_function=copy)


def cached(folder: Path, cache: Path) -> Path:
    """Have a folder's files in a cache of the Hub's: a snapshot of links to blobs."""
    snapshot, blobs = cache / "models--a--b" / "snapshots" / "c", cache / "models--a--b/blobs"
    blobs.mkdir(parents=True)
    for number, path in enumerate(path for path in folder.rglob("*") if path.is_file()):
        link = snapshot / path.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(shutil.copy(path, blobs / str(number)))
    return snapshot


def write_record(artifact: Path, record: dict) -> None:
    """Replace what an artifact's record says, and its own hash with it, as an attacker would."""
    hashed = {**record, OWN_HASH: own_hash(json.loads(json.dumps(record)))}
    (artifact / RECORD).write_text(json.dumps(hashed))


def edit_record(artifact: Path, change: Callable[[dict], object]) -> None:
    """Let a function change what an artifact's record says, and give it the hash that fits."""
    record = json.loads((artifact / RECORD).read_bytes())
    change(record)
    write_record(artifact, record)


def record_files(artifact: Path) -> None:
    """Have an artifact's record describe its files as they are, as if the source's had been so."""

    def change(record):
        for name, file in [*record["files"].items()]:
            if (artifact / name).is_file():
                file["after"] = dataclasses.asdict(hash_file(artifact / name))
            else:
                del record["files"][name]

    edit_record(artifact, change)


def edit_json(path: Path, /, **values) -> None:
    """Set fields of a JSON file, which may not be there yet; a field of ``...`` is left out."""
    document = (json.loads(path.read_bytes()) if path.is_file() else {}) | values
    path.write_text(json.dumps({key: v for key, v in document.items() if v is not ...}))


def edit_tensors(folder: Path, change: Callable[[dict], object]) -> None:
    """Let a function change a model's tensors, in place or by those that it returns."""
    from safetensors.torch import load_file, save_file  # brings torch

    path = folder / "model.safetensors"
    tensors = load_file(path)
    changed = change(tensors)
    save_file(changed if isinstance(changed, dict) else tensors, path, metadata={"format": "pt"})


def stored_tensors(folder: Path) -> dict:
    """Every tensor of a folder's safetensors files, as PyTorch reads it."""
    from safetensors.torch import load_file  # brings torch

    files = sorted(folder.glob("*.safetensors"))
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def safetensors_bytes(header: object, data: bytes = b"") -> bytes:
    """A safetensors file of a header, which need not be a right one, and what follows it."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + data


def make_pickle(folder: Path, *, legacy: bool = False) -> Path:
    """Put a pickle of the same tensors in the place of a model's safetensors."""
    import torch
    from safetensors.torch import load_file

    path = folder / "pytorch_model.bin"
    tensors = load_file(folder / "model.safetensors")
    torch.save(tensors, path, _use_new_zipfile_serialization=not legacy)
    (folder / "model.safetensors").unlink()
    return path


def run_python(*arguments, check: bool = True, **how) -> subprocess.CompletedProcess[str]:
    """Run Python, with its options or a program, in a process of its own."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=check, **how)


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
