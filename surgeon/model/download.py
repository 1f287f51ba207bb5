"""Hub id → snapshot: a model's files in the cache, in one format of weights.

Caching, resuming, ``HF_TOKEN``, ``HF_ENDPOINT``, ``HF_HOME`` and ``HF_HUB_OFFLINE`` are
huggingface_hub's own.
"""

from __future__ import annotations

import contextlib
import glob
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surgeon.errors import CheckpointError, Interrupted
from surgeon.model.checkpoint import CONFIG
from surgeon.model.files import in_module_folder, is_for_loader
from surgeon.model.hub import Listing, hub_api, list_weights, read_shards
from surgeon.model.hub_errors import (
    SHORT,
    answers_like_the_hub,
    endpoint,
    explained,
    is_outage,
    retry,
)
from surgeon.model.weight_files import (
    INDEX_SUFFIX,
    PICKLE,
    SAFETENSORS,
    find_weights_name,
    read_index,
)
from surgeon.progress import Progress, silent

if TYPE_CHECKING:
    from huggingface_hub import ResolvedRevision


# Beside a model's snapshots: which pull request, at which commit, the Hub vouched for as its
# conversion. Offline nothing else says that one in the cache is not somebody's.
_CONVERSION = "surgeon-conversion"
_MODULE = 64 * 2**20  # bytes; weights in a folder below that are a module, above a second model


def download(
    model_id: str, revision: str | None = None, progress: Progress = silent
) -> tuple[Path, str | None]:
    """Have a model in the cache: its weights in one format, and what else its loaders read.

    Without a connection, or while the Hub is down, a cached snapshot is taken as it is.

    Args:
        model_id: the repository.
        revision: a branch, a tag or a commit (None: the default branch, or the Hub's own conversion
            of its pickle to safetensors).
        progress: called with the bytes received.

    Returns:
        The folder in the cache, named after the commit, and the pull request that is converted
        weights, as in ``Listing``.

    Raises:
        CheckpointError: the repository cannot be fetched, or has no weights that surgeon reads.
        Interrupted: by Ctrl-C; what was received stays in the cache.
    """
    with explained(model_id, revision):
        progress(f"asking the Hub for {model_id}", 0, 0)
        try:
            listing = list_weights(model_id, revision, SHORT)
        except Exception as error:
            cached = find_cached(model_id, revision) if is_outage(error) else None
            if cached is None:
                raise
            return cached
        name, asked = listing.model_id, listing.conversion or revision
        with answers_like_the_hub(name):
            # Notes the commit in the cache, under the revision's name, for when there is no Hub.
            at = retry(lambda: hub_api().resolve_revision(name, revision=asked), SHORT)
        if at.resolved != listing.commit:
            raise CheckpointError(f"{name}: changed while it was listed; try again")
        try:
            folder = _fetch(at, listing, progress)
        except KeyboardInterrupt as stopped:
            raise Interrupted(
                f"{name}: the download was interrupted; run the same command again to go on, what "
                "was received is kept in the cache"
            ) from stopped
        if listing.conversion is not None:
            with contextlib.suppress(OSError):  # a cache may take no files
                note = folder.parent.parent / _CONVERSION
                note.write_text(f"{listing.conversion} {folder.name}")
        return folder, listing.conversion


def find_cached(model_id: str, revision: str | None = None) -> tuple[Path, str | None] | None:
    """Return a model in the cache as ``download`` does, if it is whole there; the Hub is not asked.

    A branch is where it was when it was last asked for; where the default one has no weights here,
    the conversion is taken that was downloaded in its place.

    Raises:
        CheckpointError: the cache holds an invalid index of shards.
    """
    from huggingface_hub import constants

    with explained(model_id, revision):
        name, conversion = _cached_id(model_id), None
        folder = _find_whole(name, revision)
        note = Path(constants.HF_HUB_CACHE, f"models--{name.replace('/', '--')}", _CONVERSION)
        if folder is None and revision is None and note.is_file():
            conversion, _, commit = note.read_text().partition(" ")
            folder = _find_whole(name, commit)
        return None if folder is None else (folder, conversion)


def _find_whole(model_id: str, revision: str | None) -> Path | None:
    """Return the snapshot of a revision in the cache, if its weights are all there."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(model_id, CONFIG, revision=revision)
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    weights = find_weights_name({entry.name for entry in folder.iterdir() if entry.is_file()})
    if weights is None:
        return None
    indexed = weights.endswith(INDEX_SUFFIX)
    shards = set(read_index(folder / weights).values()) if indexed else {weights}
    return folder if all((folder / shard).is_file() for shard in shards) else None


def _cached_id(model_id: str) -> str:
    """Return today's id for one from before there were organizations, if it is cached."""
    from huggingface_hub import constants

    if "/" in model_id:
        return model_id
    cache = Path(constants.HF_HUB_CACHE)
    if (cache / f"models--{model_id}").exists():
        return model_id
    found = list(cache.glob(f"models--*--{glob.escape(model_id)}"))
    return "/".join(found[0].name.split("--")[1:]) if len(found) == 1 else model_id


def _fetch(revision: ResolvedRevision, listing: Listing, progress: Progress) -> Path:
    from huggingface_hub import hf_hub_download, snapshot_download

    model_id, weights = listing.model_id, listing.weights
    assert weights is not None  # of list_weights
    wanted = {weights, *_beside_weights(listing.sizes)}

    def fetch(name: str) -> bytes:
        return Path(
            hf_hub_download(model_id, name, revision=revision, endpoint=endpoint())
        ).read_bytes()

    with _xet_gives_up_soon():
        wanted.update(read_shards(listing, fetch).values())
        total = sum(listing.sizes[name] or 0 for name in wanted)
        with _stopped_by_ctrl_c() as stopped:
            path = snapshot_download(
                model_id,
                revision=revision,
                endpoint=endpoint(),
                library_name="norm-surgeon",
                # The names are patterns to huggingface_hub.
                allow_patterns=sorted(map(glob.escape, wanted)),
                tqdm_class=_reporting(progress, f"downloading {model_id}", total, stopped),
            )
    return Path(path)


@contextlib.contextmanager
def _xet_gives_up_soon() -> Iterator[None]:
    """Have hf_xet, which reads the environment when it starts, fail in seconds and not minutes."""
    limits = {
        "HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "5",  # a busy machine or server drops some requests
        "HF_XET_CLIENT_RETRY_BASE_DELAY": "200ms",
        "HF_XET_CLIENT_CONNECT_TIMEOUT": "10s",
    }
    ours = {name: value for name, value in limits.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


@contextlib.contextmanager
def _stopped_by_ctrl_c() -> Iterator[threading.Event]:
    """Yield what is set by Ctrl-C, for the threads that download: they would end their files."""
    from huggingface_hub.utils._runtime import is_xet_available
    from huggingface_hub.utils._xet import abort_xet_session

    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped  # where no handler can be set
        return
    before = signal.getsignal(signal.SIGINT)

    def stop(_number: int, _frame: Any) -> None:
        if is_xet_available():
            abort_xet_session()  # type: ignore[no-untyped-call]  # its threads print what is raised
        else:
            stopped.set()
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, stop)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, before)


def _beside_weights(sizes: Mapping[str, int | None]) -> Iterator[str]:
    """Yield what loaders read beside the weights of the whole model: tokenizer, card, modules."""
    for path, size in sizes.items():
        folder, _, name = path.rpartition("/")
        if is_for_loader(path):
            yield path
        elif in_module_folder(path) and (size or 0) <= _MODULE:
            # A small module's weights (sentence-transformers), in one format.
            twin = name == PICKLE and f"{folder}/{SAFETENSORS}" in sizes
            if name in (PICKLE, SAFETENSORS) and not twin:
                yield path


def _reporting(progress: Progress, step: str, total: int, stopped: threading.Event) -> type[Any]:
    """Return a progress bar class that shows nothing and reports the bytes received.

    Once ``stopped`` is set, it raises KeyboardInterrupt in the thread that receives them.
    """
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    reported = 0

    class Reporting(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._received = 0 if kwargs.get("unit") == "B" else None
            super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> None:
            # With Xet there are two: what is received, compressed, and what it becomes.
            nonlocal reported
            super().update(n)
            if stopped.is_set():
                raise KeyboardInterrupt
            if self._received is not None:
                self._received += int(n or 0)
                if (received := min(self._received, total)) > reported:
                    reported = received
                    progress(step, reported, total)

    return Reporting
