"""A repository on the Hugging Face Hub: its id as people paste it, and which files it has."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from surgeon.errors import CheckpointError
from surgeon.model.files import is_for_loader, parse_object
from surgeon.model.hub_errors import (
    PATIENT,
    RetryPolicy,
    answers_like_the_hub,
    endpoint,
    explained,
    is_outage,
    retry,
)
from surgeon.model.weight_files import (
    INDEX_SUFFIX,
    MAX_INDEX,
    PICKLE,
    SAFETENSORS,
    find_weights_name,
    no_weights_among,
    weight_map,
)

if TYPE_CHECKING:
    from huggingface_hub import HfApi


_CONVERSION_BOT = "SFconvertbot"
_MOST_CONVERSIONS = 5  # pull requests that are looked into


@dataclass(frozen=True)
class HubId:
    """A repository on the Hub, and the revision of it that was named (None: the default branch)."""

    model: str
    revision: str | None = None


@dataclass(frozen=True)
class Listing:
    """The files of a repository at a commit: name → size in bytes, None if unknown.

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
        """What identifies the weights: the contents of all files in their format."""
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


def parse_hub_id(text: str) -> HubId | None:
    """Read an id as people paste it: ``name``, ``name@revision``, or the address of its page.

    Spaces around it and a slash at its end are no part of it. None if it can be no model on the
    Hub.
    """
    model, revision = _from_page(text.strip().rstrip("/"))
    return HubId(model, revision) if looks_like_hub_id(model) and revision != "" else None


def hub_id(model: str | Path, revision: str | None) -> HubId:
    """Read MODEL, which is not a path, as an id on the Hub, at ``revision`` if that is not None.

    Raises:
        CheckpointError: it cannot be one, or names another revision.
    """
    found = parse_hub_id(str(model))
    if found is None:
        raise CheckpointError(f"{model}: no such file or directory, and no Hub id either")
    if revision is None:
        return found
    if found.revision not in (None, revision):
        given = str(model).strip()
        raise CheckpointError(f"`revision` {revision}: {given} names {found.revision}; give one")
    return HubId(found.model, revision)


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


def list_weights(model_id: str, revision: str | None, policy: RetryPolicy) -> Listing:
    """Ask the Hub for the files of a repository with weights; call it inside ``explained``.

    Where the default branch has a pickle, the Hub's own conversion of it is listed, if it has one.

    Raises:
        CheckpointError: as ``list_files``, or it holds no weights that surgeon reads.
    """
    listing = retry(lambda: list_files(model_id, revision), policy)
    if listing.weights is None:
        give = f"download it (hf download {model_id} --local-dir DIR) and give"
        raise CheckpointError(f"{model_id}: {no_weights_among(listing.sizes, give)}")
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
        CheckpointError: the answer is not a repository, or names a file outside of one.
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
        contents = ((f.rfilename, f.lfs.sha256 if f.lfs else f.blob_id) for f in files)
        hashes = {name: value for name, value in contents if value}
        commit, canonical = info.sha or "", info.id
    # It will name a folder of the cache.
    if not re.fullmatch("[0-9a-f]{40}", commit):
        raise CheckpointError(
            f"{model_id}: {endpoint()} calls {commit!r} its commit; do not use this repository"
        )
    for name in sizes:  # a name of a server becomes a path of ours
        parts = name.split("/")
        if any(part in ("", ".", "..") for part in parts) or "\\" in name or not name.isprintable():
            raise CheckpointError(
                f"{model_id}: {endpoint()} lists the file {name!r}, which would lie outside of the "
                "model; do not use this repository"
            )
    if not looks_like_hub_id(canonical):
        raise CheckpointError(f"{model_id}: {endpoint()} calls it {canonical!r}, an invalid id")
    return Listing(canonical, commit, sizes, hashes)


def hub_api() -> HfApi:
    """Return huggingface_hub's client of ``endpoint()``."""
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint(), library_name="norm-surgeon")


def read_shards(listing: Listing, fetch: Callable[[str], bytes]) -> Mapping[str, str]:
    """Return tensor → shard as a repository's index says, nothing for weights in one file.

    Args:
        listing: the files of the repository.
        fetch: what returns the content of a file.

    Raises:
        CheckpointError: it is not an index or too large for one, or names a file that is not there.
    """
    name = listing.weights or ""
    if not name.endswith(INDEX_SUFFIX):
        return {}
    size, label = listing.sizes[name] or 0, f"{listing.model_id}/{name}"
    if size > MAX_INDEX:
        raise CheckpointError(
            f"{listing.model_id}: {name} has {size} bytes; an index has {MAX_INDEX}"
        )
    shards = weight_map(label, parse_object(label, fetch(name)))
    for shard in sorted(set(shards.values()) - listing.sizes.keys()):
        raise CheckpointError(f"{label}: names {shard}, which is not there")
    return shards


def list_revisions(model_id: str) -> tuple[str, ...]:
    """Ask the Hub for the names of a repository's branches and tags, each once, in its order.

    Raises:
        CheckpointError: the repository cannot be read.
    """
    with explained(model_id), answers_like_the_hub(model_id):
        refs = retry(lambda: hub_api().list_repo_refs(model_id), PATIENT)
        return tuple(dict.fromkeys(ref.name for ref in (*refs.branches, *refs.tags)))
