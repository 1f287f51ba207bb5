"""MODEL → files: a model directory, a weight file, or a model on the Hub, opened."""

from __future__ import annotations

import os
import reprlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from surgeon.errors import CheckpointError
from surgeon.model.checkpoint import CONFIG, Checkpoint, count_weights
from surgeon.model.files import RECORD, read_object, recorded_pattern
from surgeon.model.tensors import TensorFile
from surgeon.model.weight_files import find_weights, open_one_file, why_missing
from surgeon.progress import Progress, silent

_MOST_LABELS = 1_000_000


def open_checkpoint(
    model: str | Path,
    *,
    revision: str | None = None,
    sites_pattern: str | None = None,
    name: str | None = None,
    progress: Progress = silent,
) -> Checkpoint:
    """Open a model directory, a ``.safetensors`` file in one, or a model on the Hub.

    A model on the Hub is downloaded to the Hugging Face cache first, the needed files alone, and
    never written to.

    Args:
        model: the path or the Hub id, with ``@revision`` or without, or the address of its page. A
            path that exists is taken as one.
        revision: for a Hub id: a branch, a tag or a commit (None: the default branch).
        sites_pattern: for an architecture without a row: a regular expression for the paths of
            the modules that are the last operation of each layer (None: what the record of an
            artifact says).
        name: what reports and the model card call the model (None: as it was found).
        progress: called during a download.

    Raises:
        CheckpointError: there is no such model, no weights in it, or no readable configuration.
            A weight file needs none, nor does an artifact of one.
    """
    path = Path(model)
    if os.path.lexists(path):
        if revision is not None:
            raise CheckpointError(f"`revision` {revision}: {path} is a path, which has none")
        return _open_local(path, name, sites_pattern)
    from surgeon.model.download import download  # which a path has no use for
    from surgeon.model.hub import hub_id

    found = hub_id(model, revision)
    folder, conversion = download(found.model, found.revision, progress)
    return replace(_open_local(folder, name, sites_pattern), conversion=conversion)


def open_for_scan(
    model: str | Path,
    *,
    revision: str | None = None,
    sites_pattern: str | None = None,
    progress: Progress = silent,
) -> Checkpoint:
    """Open a model to read some of its tensors: as ``open_checkpoint``, but without a download.

    A model on the Hub that is not in the cache is read by range requests alone:
    ``checkpoint.meter`` counts the bytes.

    Raises:
        CheckpointError: as ``open_checkpoint``.
    """
    if os.path.lexists(model):
        return open_checkpoint(model, revision=revision, sites_pattern=sites_pattern)
    from surgeon.model.download import find_cached
    from surgeon.model.hub import hub_id
    from surgeon.model.remote import open_remote

    found = hub_id(model, revision)
    if (cached := find_cached(found.model, found.revision)) is not None:
        folder, conversion = cached
        return replace(_open_local(folder, None, sites_pattern), conversion=conversion)
    progress("asking the Hub", 0, 0)
    return open_remote(found.model, found.revision, sites_pattern=sites_pattern)


def _open_local(path: Path, name: str | None, sites_pattern: str | None) -> Checkpoint:
    if not path.exists():
        raise CheckpointError(f"{path}: {why_missing(path)}")
    files: tuple[TensorFile, ...]
    if path.is_dir():
        directory, (files, index) = path, find_weights(path)
    elif path.suffix == ".safetensors":
        directory, files, index = path.parent, (open_one_file(path),), None
    else:
        takes = " (scan and patch alone take an ONNX file)" if path.suffix == ".onnx" else ""
        give = "the model it was made of" if path.suffix == ".gguf" else "it or its model directory"
        raise CheckpointError(f"{path}: not a .safetensors file; give {give}{takes}")
    made, needed = (directory / RECORD).is_file(), directory / CONFIG
    config = read_object(needed)
    if config is None and needed.is_symlink():
        raise CheckpointError(f"{needed}: {why_missing(needed)}")
    if config is None and path.is_dir() and not made:
        raise CheckpointError(
            f"{needed}: no such file; the architecture is read from it, so put it beside the "
            "weights"
        )
    _check_labels(str(needed), config)
    alone = config is None and not made
    # Of the path as given: a link has the better name than what it leads to.
    place = Path(os.path.abspath(directory))  # noqa: PTH100
    # A name that the locale cannot read has stand-ins that no file in UTF-8 takes.
    called = os.fsencode(path.stem if alone else place.name).decode("utf-8", "replace")
    model_id = revision = None
    repository = place.parent.parent.name
    if place.parent.name == "snapshots" and repository.startswith("models--"):
        # A snapshot in a cache of huggingface_hub.
        model_id = repository.removeprefix("models--").replace("--", "/")
        revision = place.name
    return Checkpoint(
        name=name or model_id or called,
        directory=directory,
        config=config or {},
        files=files,
        parameters_total=count_weights(files),
        index=index,
        revision=revision,
        sites_pattern=recorded_pattern(directory) if sites_pattern is None else sites_pattern,
        alone=alone,
    )


def _check_labels(label: str, config: Any) -> None:
    """Refuse a number of labels for which transformers would make names endlessly."""
    parts = [config]
    for part in parts:
        values = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
        parts.extend(value for value in values if isinstance(value, dict | list))
        count = part.get("num_labels") if isinstance(part, dict) else None
        if isinstance(count, int | float) and count > _MOST_LABELS:
            raise CheckpointError(
                f"{label}: num_labels is {reprlib.repr(count)}, and at most {_MOST_LABELS:,} are "
                "read; give the number that the weights have"
            )
