"""Checkpoint → ONNX without surgery, laid out as Optimum and transformers.js expect it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from pathlib import Path
from typing import Any

from surgeon._version import __version__
from surgeon.checkpoint import Checkpoint
from surgeon.errors import ExportError
from surgeon.onnx_model.facts import Dtype, OnnxFacts
from surgeon.progress import Progress, silent
from surgeon.scoring.sizes import check_sizes
from surgeon.surgery.source_files import EXPORT, FOLDER, ONNX_FOLDER, list_source_files
from surgeon.surgery.staging import check_output, staged
from surgeon.surgery.transfer import FileState, hash_file, transfer

SCHEMA = 1
_INSTEAD = "run it in PyTorch instead"


@dataclasses.dataclass(frozen=True)
class Export:
    """What was exported: ``files`` has the size and the hash of every file but this record."""

    surgeon: str
    created: str
    model: str
    revision: str | None
    architecture: str
    onnx: OnnxFacts
    files: dict[str, FileState]
    schema: int = SCHEMA

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``surgeon/export.json``."""
        return dataclasses.asdict(self)


def export(
    checkpoint: Checkpoint,
    output: Path,
    *,
    dtype: Dtype = "float32",
    force: bool = False,
    progress: Progress = silent,
) -> Export:
    """Export a checkpoint as it is to ``onnx/model.onnx``.

    The output holds the graph, the configuration, the tokenizer and every other file of the source
    but its weights and its model card, and ``surgeon/export.json``.

    Args:
        checkpoint: what to export.
        output: the directory to make. It appears whole, or not at all.
        dtype: of the weights in the graph.
        force: whether an output that exists is replaced.
        progress: told of each step.

    Raises:
        OutputError: the output cannot be made there.
        ExportError: the export failed, or does not match the weights.
    """
    if not checkpoint.config:
        path = checkpoint.files[0].path
        raise ExportError(f"{path}: has no config.json beside it, and an export needs one")
    check_sizes(checkpoint, _INSTEAD)
    check_output(output, checkpoint.directory, force=force)
    with staged(output, force=force) as folder:
        for target, origin in list_source_files(checkpoint).copied.items():
            if not target.startswith(f"{FOLDER}/"):
                transfer(checkpoint.directory / origin, folder / target)
        facts = _export(checkpoint, folder, dtype, progress)
        progress("hashing the files", 0, 0)
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        done = Export(
            surgeon=__version__,
            created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            model=checkpoint.name,
            revision=checkpoint.revision,
            architecture=checkpoint.family.name,
            onnx=facts,
            files={path.relative_to(folder).as_posix(): hash_file(path) for path in paths},
        )
        (folder / FOLDER).mkdir(exist_ok=True)
        (folder / EXPORT).write_text(json.dumps(done.to_json(), indent=1) + "\n", "utf-8")
    return done


def _export(checkpoint: Checkpoint, folder: Path, dtype: Dtype, progress: Progress) -> OnnxFacts:
    progress("loading PyTorch", 0, 0)
    from surgeon.onnx_model.export import export_model  # brings torch and transformers

    return export_model(
        checkpoint,
        folder / ONNX_FOLDER,
        progress,
        otherwise=_INSTEAD,
        dtype=dtype,
    )
