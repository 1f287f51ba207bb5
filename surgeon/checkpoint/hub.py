"""Hub id → files: what surgeon needs of a repository on the Hugging Face Hub, in its cache.

Caching, resuming, ``HF_TOKEN``, ``HF_ENDPOINT``, ``HF_HOME`` and ``HF_HUB_OFFLINE`` are
huggingface_hub's own.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import signal
import threading
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surgeon.checkpoint.hub_errors import (
    answers_like_the_hub,
    endpoint,
    explained,
    is_outage,
)
from surgeon.checkpoint.json_object import parse_object
from surgeon.checkpoint.loader_files import in_module_folder, is_for_loader
from surgeon.checkpoint.retry import SHORT, RetryPolicy, retry
from surgeon.checkpoint.weight_files import (
    INDEX_SUFFIX,
    MAX_INDEX,
    PICKLE,
    SAFETENSORS,
    no_weights_among,
    weight_map,
)
from surgeon.errors import CheckpointError, Interrupted
from surgeon.progress import Progress, silent

if TYPE_CHECKING:
    from huggingface_hub import HfApi, ResolvedRevision

_CONVERSION_BOT = "SFconvertbot"
_MOST_CONVERSIONS = 5  # pull requests that are looked into
_MODULE = 64 * 2**20  # bytes; weights in a folder below that are a module, above a second model


@dataclass(frozen=True)
class HubId:
    """A repository on the Hub, and the revision of it that was named (None: the default branch)."""

    model: str
    revision: str | None = None


@dataclass(frozen=True)
class HubSnapshot:
    """A repository in the cache: ``path`` is a model directory, ``revision`` the commit.

    ``conversion`` is the pull request that it is of, as in ``Listing``.
    """

    path: Path
    model_id: str
    revision: str
    conversion: str | None = None


@dataclass(frozen=True)
class Listing:
    """The files of a repository at a commit: name → size in bytes, None where not told.

    ``model_id`` is the repository's id today, if it was asked for by an earlier one. ``hashes`` are
    those of the contents, by name. ``conversion`` is the pull request, such as ``refs/pr/4``, that
    holds as safetensors what the default branch has as a pickle, where it is the one listed.
    """

    model_id: str
    commit: str
    sizes: Mapping[str, int | None]
    hashes: Mapping[str, str]
    conversion: str | None = None

    @property
    def weights(self) -> str | None:
        """The file with the weights, or the index of its shards; safetensors come first."""
        return find_weights_name(self.sizes)

    @property
    def weights_hash(self) -> frozenset[tuple[str, str]]:
        """What tells the weights from others: the contents of all files in their format."""
        pickled = (self.weights or "").startswith(PICKLE)
        form = r"pytorch_model.*\.bin" if pickled else r"model.*\.safetensors"
        return frozenset(pair for pair in self.hashes.items() if re.fullmatch(form, pair[0]))


def looks_like_hub_id(model: str) -> bool:
    """Whether a string may be a repository's id: ``name`` or ``organization/name``."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(model)
    except HFValidationError:
        return False
    return True


def parse_hub_id(text: str, revision: str | None = None) -> HubId | None:
    """Read an id as people paste it: ``name``, ``name@revision``, or the address of its page.

    Args:
        text: what was given as MODEL; spaces around it and a slash at its end are no part of it.
        revision: what ``--revision`` says.

    Returns:
        None if it can be no model on the Hub.

    Raises:
        CheckpointError: it names another revision than ``revision``.
    """
    model, named = _from_page(text.strip().rstrip("/"))
    if not looks_like_hub_id(model) or named == "":
        return None
    if revision is not None and named not in (None, revision):
        raise CheckpointError(f"--revision {revision}: {text.strip()} names {named}; give one")
    return HubId(model, revision if revision is not None else named)


def _from_page(text: str) -> tuple[str, str | None]:
    from huggingface_hub.errors import HfUriError
    from huggingface_hub.utils import parse_hf_uri  # type: ignore[attr-defined]

    try:
        uri = parse_hf_uri(text, endpoint=endpoint())
    except HfUriError:
        page = re.fullmatch(r"https?://(?:huggingface\.co|hf\.co)/([^/]+)", text)
        model, at, revision = (page[1] if page else text).partition("@")
        return model, revision if at else None
    return (uri.id, uri.revision) if uri.type == "model" else ("", None)


def download(
    model_id: str, revision: str | None = None, progress: Progress = silent
) -> HubSnapshot:
    """Have a model in the cache: its weights in one format, and what else its loaders read.

    Without a connection, or while the Hub is down, a cached snapshot is taken as it is.

    Args:
        model_id: the repository.
        revision: a branch, a tag or a commit (None: the default branch, or the Hub's own conversion
            of its pickle to safetensors).
        progress: told of the bytes.

    Raises:
        CheckpointError: the repository cannot be had, or has no weights that surgeon reads.
        Interrupted: by Ctrl-C; what was received stays in the cache.
    """
    with explained(model_id, revision):
        progress(f"asking the Hub for {model_id}", 0, 0)
        try:
            listing = list_weights(model_id, revision, SHORT)
        except Exception as error:
            snapshot = find_cached(model_id, revision) if is_outage(error) else None
            if snapshot is None:
                raise
            return snapshot
        name, asked = listing.model_id, listing.conversion or revision
        with answers_like_the_hub(name):
            # Notes the commit in the cache, under the revision's name, for when there is no Hub.
            at = retry(lambda: hub_api().resolve_revision(name, revision=asked), SHORT)
        if at.resolved != listing.commit:
            raise CheckpointError(f"{name}: changed while it was listed; try again")
        try:
            return _fetch(at, listing, progress)
        except KeyboardInterrupt as stopped:
            raise Interrupted(
                f"{name}: the download was interrupted; run the same command again to go on, what "
                "was received is kept in the cache"
            ) from stopped


def find_cached(model_id: str, revision: str | None = None) -> HubSnapshot | None:
    """Return what the cache has, without asking the Hub: the weights whole and the configuration.

    A branch is where it was when it was last asked for.

    Raises:
        CheckpointError: the cache holds an index of shards that is none.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    with explained(model_id, revision):
        known = _cached_id(model_id)
        try:
            path = Path(
                snapshot_download(
                    known,
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
        return HubSnapshot(path, known, path.name) if whole else None


def _cached_id(model_id: str) -> str:
    """Return the id of today for one from before there were organizations, if it is cached."""
    from huggingface_hub import constants

    if "/" in model_id:
        return model_id
    cache = Path(constants.HF_HUB_CACHE)
    if (cache / f"models--{model_id}").exists():
        return model_id
    found = list(cache.glob(f"models--*--{glob.escape(model_id)}"))
    return "/".join(found[0].name.split("--")[1:]) if len(found) == 1 else model_id


def list_weights(model_id: str, revision: str | None, policy: RetryPolicy) -> Listing:
    """Ask the Hub for the files of a repository with weights; call it inside ``explained``.

    Where the default branch has a pickle, the Hub's own conversion of it is listed, if it has one.

    Raises:
        CheckpointError: as ``list_files``, or it holds no weights that surgeon reads.
    """
    listing = retry(lambda: list_files(model_id, revision), policy)
    if listing.weights is None:
        raise no_weights(model_id, listing.sizes)
    if revision is None and listing.weights.startswith(PICKLE):
        return _find_conversion(listing, policy) or listing
    return listing


def _find_conversion(listing: Listing, policy: RetryPolicy) -> Listing | None:
    """Return the pull request that adds safetensors and changes nothing that a loader reads."""
    with answers_like_the_hub(listing.model_id):
        refs = retry(lambda: _conversion_refs(listing.model_id), policy)
    for ref in refs[:_MOST_CONVERSIONS]:
        found = retry(lambda ref=ref: list_files(listing.model_id, ref), policy)  # type: ignore[misc]
        kept = (
            found.hashes.get(name) == value
            for name, value in listing.hashes.items()
            if name != "README.md" and (is_for_loader(name) or name.startswith("pytorch_model"))
        )
        if (found.weights or "").startswith(SAFETENSORS) and all(kept):
            return replace(found, conversion=ref)
    return None


def _conversion_refs(model_id: str) -> list[str]:
    """Return the pull requests of the Hub's bot that converts pickles, the newest first."""
    from huggingface_hub.errors import HfHubHTTPError

    api = hub_api()
    try:
        requests = list(
            api.get_repo_discussions(
                model_id, author=_CONVERSION_BOT, discussion_type="pull_request"
            )
        )
        return [r.git_reference for r in requests if r.git_reference and r.status != "closed"]
    except (HfHubHTTPError, KeyError) as error:
        if isinstance(error, HfHubHTTPError) and error.response.status_code != 404:
            if is_outage(error):
                raise
            return []  # discussions are switched off, so that nobody vouches for a request
        # A mirror may know no discussions; what is in the request is compared all the same.
        refs = api.list_repo_refs(model_id, include_pull_requests=True)
        return [ref.ref for ref in reversed(refs.pull_requests or ())]


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
        files = info.siblings or ()
        sizes = {file.rfilename: file.size for file in files}
        told = ((f.rfilename, f.lfs.sha256 if f.lfs else f.blob_id) for f in files)
        hashes = {name: value for name, value in told if value}
        commit, canonical = info.sha or "", info.id
    # It will name a folder of the cache.
    if not re.fullmatch("[0-9a-f]{40}", commit):
        raise CheckpointError(
            f"{model_id}: {endpoint()} calls {commit!r} its commit; do not use this repository"
        )
    for name in sizes:
        _check_name(model_id, name)
    if not looks_like_hub_id(canonical):
        raise CheckpointError(f"{model_id}: {endpoint()} calls it {canonical!r}, which is no id")
    return Listing(canonical, commit, sizes, hashes)


def find_weights_name(names: Collection[str]) -> str | None:
    """Return the file with the weights, or the index of its shards; safetensors come first."""
    known = (SAFETENSORS, SAFETENSORS + INDEX_SUFFIX, PICKLE, PICKLE + INDEX_SUFFIX)
    return next((name for name in known if name in names), None)


def no_weights(model_id: str, names: Collection[str]) -> CheckpointError:
    """Return the error for a repository whose files hold no weights that surgeon reads."""
    top = sorted(name for name in names if "/" not in name)
    fetch = f"hf download {model_id} --local-dir DIR"
    return CheckpointError(
        f"{model_id}: {no_weights_among(top, f'download it ({fetch}) and give')}"
    )


def hub_api() -> HfApi:
    """Return huggingface_hub's client of ``endpoint()``."""
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint(), library_name="norm-surgeon")


def _fetch(revision: ResolvedRevision, listing: Listing, progress: Progress) -> HubSnapshot:
    from huggingface_hub import hf_hub_download, snapshot_download

    model_id, weights = listing.model_id, listing.weights
    assert weights is not None  # of list_weights
    wanted = {weights, *_beside_weights(listing.sizes)}
    with _xet_gives_up_soon():
        if weights.endswith(INDEX_SUFFIX):
            check_index_size(model_id, weights, listing)
            index = hf_hub_download(model_id, weights, revision=revision, endpoint=endpoint())
            wanted.update(shards := _shards(model_id, Path(index)))
            for shard in sorted(shards - listing.sizes.keys()):
                raise CheckpointError(f"{model_id}: {weights} names {shard}, which is not there")
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
    return HubSnapshot(Path(path), model_id, listing.commit, listing.conversion)


@contextlib.contextmanager
def _xet_gives_up_soon() -> Iterator[None]:
    """Have hf_xet, which reads the environment when it starts, fail in seconds and not minutes."""
    limits = {"HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "2", "HF_XET_CLIENT_CONNECT_TIMEOUT": "10s"}
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


def check_index_size(model_id: str, name: str, listing: Listing) -> None:
    """Refuse an index of shards that is too large to be one, before it is fetched."""
    size = listing.sizes[name] or 0
    if size > MAX_INDEX:
        raise CheckpointError(f"{model_id}: {name} has {size} bytes; an index has {MAX_INDEX}")


def _shards(model_id: str, index: Path) -> set[str]:
    label = f"{model_id}/{index.name}"
    return set(weight_map(label, parse_object(label, index.read_bytes())).values())


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


def _check_name(model_id: str, name: str) -> None:
    # A name of a server becomes a path of ours.
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in name or not name.isprintable():
        raise CheckpointError(
            f"{model_id}: {endpoint()} lists the file {name!r}, which would lie outside of the "
            "model; do not use this repository"
        )


def _reporting(progress: Progress, step: str, total: int, stopped: threading.Event) -> type[Any]:
    """Return a progress bar class that shows nothing and reports the bytes received.

    Once ``stopped`` is set, it raises KeyboardInterrupt in the thread that receives them.
    """
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    told = 0

    class Reporting(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._received = 0 if kwargs.get("unit") == "B" else None
            super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> None:
            # With Xet there are two: what is received, compressed, and what it becomes.
            nonlocal told
            super().update(n)
            if stopped.is_set():
                raise KeyboardInterrupt
            if self._received is not None:
                self._received += int(n or 0)
                if (received := min(self._received, total)) > told:
                    told = received
                    progress(step, told, total)

    return Reporting
