"""Hub id → files: what surgeon needs of a repository on the Hugging Face Hub, in its cache.

Caching, resuming, ``HF_TOKEN``, ``HF_ENDPOINT``, ``HF_HOME`` and ``HF_HUB_OFFLINE`` are
huggingface_hub's own.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surgeon.checkpoint.hub_errors import (
    answers_like_the_hub,
    endpoint,
    explained,
    is_outage,
)
from surgeon.checkpoint.json_object import parse_object
from surgeon.checkpoint.weight_files import (
    INDEX_SUFFIX,
    MAX_INDEX,
    PICKLE,
    SAFETENSORS,
    weight_map,
)
from surgeon.errors import CheckpointError
from surgeon.progress import Progress, silent

if TYPE_CHECKING:
    from huggingface_hub import HfApi, ResolvedRevision

# The same weights in other formats, wherever they lie.
_OTHER_FORMATS = (
    "*.h5", "*.msgpack", "*.ot", "*.gguf", "*.ggml", "*.onnx", "*.onnx_data", "*.tflite",
    "*.mlmodel", "*.pt", "*.pth", "*.ckpt",
)  # fmt: skip
_OTHER_FOLDERS = ("onnx", "openvino", "coreml", "gguf", "original", "flax", "tf")
_TOP_WEIGHTS = (
    "*.safetensors",
    "pytorch_model*.bin",
    "*.safetensors.index.json",
    "*.bin.index.json",
)
_MODULE = 64 * 2**20  # bytes; weights in a folder below that are a module, above a second model


@dataclass(frozen=True)
class HubSnapshot:
    """A repository in the cache: ``path`` is a model directory, ``revision`` the commit."""

    path: Path
    model_id: str
    revision: str


@dataclass(frozen=True)
class Listing:
    """The files of a repository at a commit: name → size in bytes, None where not told."""

    commit: str
    sizes: Mapping[str, int | None]


def looks_like_hub_id(model: str) -> bool:
    """Whether a string may be a repository's id: ``name`` or ``organization/name``."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(model)
    except HFValidationError:
        return False
    return True


def download(
    model_id: str, revision: str | None = None, progress: Progress = silent
) -> HubSnapshot:
    """Have a model in the cache: its weights in one format, and all that is no weights.

    Without a connection, or while the Hub is down, a cached snapshot is taken as it is.

    Args:
        model_id: the repository.
        revision: a branch, a tag or a commit (None: the default branch).
        progress: told of the bytes.

    Raises:
        CheckpointError: the repository cannot be had, or has no weights that surgeon reads.
    """
    with explained(model_id, revision):
        try:
            listing = list_files(model_id, revision)
        except Exception as error:
            snapshot = find_cached(model_id, revision) if is_outage(error) else None
            if snapshot is None:
                raise
            return snapshot
        with answers_like_the_hub(model_id):
            # Notes the commit in the cache, under the revision's name, for when there is no Hub.
            at = hub_api().resolve_revision(model_id, revision=revision)
        if at.resolved != listing.commit:
            raise CheckpointError(f"{model_id}: changed while it was listed; try again")
        return _fetch(model_id, at, listing, progress)


def find_cached(model_id: str, revision: str | None = None) -> HubSnapshot | None:
    """Return what the cache has, without asking the Hub: the weights whole and the configuration.

    A branch is where it was when it was last asked for.

    Raises:
        CheckpointError: the cache holds an index of shards that is none.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    with explained(model_id, revision):
        try:
            path = Path(
                snapshot_download(
                    model_id,
                    revision=revision,
                    local_files_only=True,
                    allow_patterns=["config.json"],
                )
            )
        except LocalEntryNotFoundError:
            return None
        weights = find_weights_name({entry.name for entry in path.iterdir() if entry.is_file()})
        if weights is None or not (path / "config.json").is_file():
            return None
        shards = {weights}
        if weights.endswith(INDEX_SUFFIX):
            shards = _shards(model_id, path / weights)
        whole = all((path / shard).is_file() for shard in shards)
        return HubSnapshot(path, model_id, path.name) if whole else None


def list_files(model_id: str, revision: str | None) -> Listing:
    """Ask the Hub for a repository's files; call it inside ``explained``.

    Raises:
        CheckpointError: the answer is no repository, or names a file outside of one.
    """
    from huggingface_hub import constants

    with answers_like_the_hub(model_id):
        info = hub_api().model_info(
            model_id,
            revision=revision,
            files_metadata=True,
            timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
        )
        sizes = {file.rfilename: file.size for file in info.siblings or ()}
        commit = info.sha or ""
    # It will name a folder of the cache.
    if not re.fullmatch("[0-9a-f]{40}", commit):
        raise CheckpointError(
            f"{model_id}: {endpoint()} calls {commit!r} its commit; do not use this repository"
        )
    for name in sizes:
        _check_name(model_id, name)
    return Listing(commit, sizes)


def find_weights_name(names: Collection[str]) -> str | None:
    """Return the file with the weights, or the index of its shards; safetensors come first."""
    known = (SAFETENSORS, SAFETENSORS + INDEX_SUFFIX, PICKLE, PICKLE + INDEX_SUFFIX)
    return next((name for name in known if name in names), None)


def no_weights(model_id: str, names: Collection[str]) -> CheckpointError:
    """Return the error for a repository whose files hold no weights that surgeon reads."""
    others = sorted(name for name in names if _is_weights(name))[:4]
    found = f"found {', '.join(others)}" if others else "nothing like them is there"
    return CheckpointError(
        f"{model_id}: no weights in it; surgeon reads {SAFETENSORS} and {PICKLE}, whole or in "
        f"shards; {found}"
    )


def hub_api() -> HfApi:
    """Return huggingface_hub's client of ``endpoint()``."""
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint(), library_name="norm-surgeon")


def _fetch(
    model_id: str, revision: ResolvedRevision, listing: Listing, progress: Progress
) -> HubSnapshot:
    from huggingface_hub import hf_hub_download, snapshot_download

    weights = find_weights_name(listing.sizes)
    if weights is None:
        raise no_weights(model_id, listing.sizes)
    wanted = {weights, *_beside_weights(listing.sizes)}
    if weights.endswith(INDEX_SUFFIX):
        check_index_size(model_id, weights, listing)
        index = hf_hub_download(model_id, weights, revision=revision, endpoint=endpoint())
        wanted.update(shards := _shards(model_id, Path(index)))
        for shard in sorted(shards - listing.sizes.keys()):
            raise CheckpointError(f"{model_id}: {weights} names {shard}, which is not there")
    total = sum(listing.sizes[name] or 0 for name in wanted)
    path = snapshot_download(
        model_id,
        revision=revision,
        endpoint=endpoint(),
        library_name="norm-surgeon",
        # The names are patterns to huggingface_hub.
        allow_patterns=sorted(map(glob.escape, wanted)),
        tqdm_class=_reporting(progress, f"downloading {model_id}", total),
    )
    return HubSnapshot(Path(path), model_id, listing.commit)


def check_index_size(model_id: str, name: str, listing: Listing) -> None:
    """Refuse an index of shards that is too large to be one, before it is fetched."""
    size = listing.sizes[name] or 0
    if size > MAX_INDEX:
        raise CheckpointError(f"{model_id}: {name} has {size} bytes; an index has {MAX_INDEX}")


def _shards(model_id: str, index: Path) -> set[str]:
    label = f"{model_id}/{index.name}"
    return set(weight_map(label, parse_object(label, index.read_bytes())).values())


def _beside_weights(sizes: Mapping[str, int | None]) -> Iterator[str]:
    """Yield what is no weights of the whole model: configuration, tokenizer, card, modules."""
    for path, size in sizes.items():
        folder, _, name = path.rpartition("/")
        if path.partition("/")[0] in _OTHER_FOLDERS and folder:
            continue
        if not folder:
            if not _is_weights(name):
                yield path
        elif not _is_weights(name) or _is_module(folder, name, size, sizes):
            yield path


def _is_weights(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in (*_TOP_WEIGHTS, *_OTHER_FORMATS))


def _is_module(folder: str, name: str, size: int | None, sizes: Mapping[str, int | None]) -> bool:
    """Whether weights in a folder are a small module's (sentence-transformers), in one format."""
    if name == PICKLE and f"{folder}/{SAFETENSORS}" in sizes:
        return False
    return name in (PICKLE, SAFETENSORS) and (size or 0) <= _MODULE


def _check_name(model_id: str, name: str) -> None:
    # A name of a server becomes a path of ours.
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in name or not name.isprintable():
        raise CheckpointError(
            f"{model_id}: {endpoint()} lists the file {name!r}, which would lie outside of the "
            "model; do not use this repository"
        )


def _reporting(progress: Progress, step: str, total: int) -> type[Any]:
    """Return a progress bar class that shows nothing and reports the bytes received."""
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    class Reporting(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._received = 0 if kwargs.get("unit") == "B" else None
            super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> None:
            super().update(n)
            if self._received is not None:
                self._received += int(n or 0)
                progress(step, min(self._received, total), total)

    return Reporting
