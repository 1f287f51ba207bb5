"""A model on the Hub, read by HTTP range requests: its headers and the tensors asked for alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from surgeon.checkpoint.hub import (
    Listing,
    check_index_size,
    find_weights_name,
    list_files,
    no_weights,
)
from surgeon.checkpoint.hub_errors import endpoint, explained
from surgeon.checkpoint.json_object import parse_object
from surgeon.checkpoint.patience import persist
from surgeon.checkpoint.reading import QUICK, Meter, Reading, runs_of
from surgeon.checkpoint.safetensors_file import (
    PREFIX,
    TensorInfo,
    editable_dtype,
    header_length,
    parse_header,
)
from surgeon.checkpoint.weight_files import MAX_INDEX, PICKLE, check_index, weight_map
from surgeon.errors import CheckpointError

if TYPE_CHECKING:
    from httpx2 import Response

_MAX_CONFIG = 10_000_000
_MAX_PART = 2**30  # bytes; who needs more in one piece should have the file


@dataclass(frozen=True, eq=False)
class RemoteFile:
    """A safetensors file on the Hub, with the interface of ``SafetensorsFile``.

    ``path`` is its place below the Hub's address; ``tensors`` is in the order of the header.
    """

    path: PurePosixPath
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    _repository: _Repository = field(repr=False)

    def read(self, name: str) -> npt.NDArray[Any]:
        """Return one floating-point tensor, fetched now if ``prefetch`` did not.

        Raises:
            CheckpointError: the dtype is not one of ``dtypes.FLOATS``, or it cannot be had.
        """
        info = self.tensors[name]
        dtype = editable_dtype(str(self.path), info)
        raw = self._repository.fetch([(self, name)])[name]
        return np.frombuffer(raw, dtype=dtype).reshape(info.shape)

    def prefetch(self, names: Iterable[str]) -> None:
        """Fetch tensors for ``read``, several at a time, near ones in one request.

        Raises:
            CheckpointError: they cannot be had.
        """
        self._repository.fetch([(self, name) for name in names])


@dataclass(frozen=True, eq=False)
class RemoteModel:
    """A model on the Hub at one commit: its configuration, and the headers of its files."""

    model_id: str
    revision: str
    config: Mapping[str, Any]
    files: tuple[RemoteFile, ...]
    _repository: _Repository = field(repr=False)

    @cached_property
    def homes(self) -> Mapping[str, RemoteFile]:
        """The file that holds each tensor."""
        return {name: file for file in self.files for name in file.tensors}

    def prefetch(self, names: Iterable[str]) -> None:
        """Fetch tensors for the files' ``read``, of all files at once.

        Raises:
            CheckpointError: they cannot be had.
        """
        self._repository.fetch([(self.homes[name], name) for name in names])

    @property
    def bytes_read(self) -> int:
        """Bytes of the model's files received so far, the configuration's included."""
        return self._repository.meter.received


def open_remote(
    model_id: str,
    revision: str | None = None,
    *,
    reading: Reading = QUICK,
    meter: Meter | None = None,
) -> RemoteModel:
    """Read a model's configuration and the headers of its weights, without downloading it.

    Args:
        model_id: the repository.
        revision: a branch, a tag or a commit (None: the default branch).
        reading: whether bytes or round trips are to be few, and how long an outage is waited for.
        meter: counts the bytes received, those of a model that turns out unreadable too.

    Raises:
        CheckpointError: the repository cannot be had, its weights are no safetensors, or what the
            server sends is not what was asked for.
    """
    with explained(model_id, revision):
        listing = persist(lambda: list_files(model_id, revision), reading.patience)
        repository = _Repository(model_id, listing, reading, meter or Meter())
        weights = find_weights_name(listing.sizes)
        if weights is None:
            raise no_weights(model_id, listing.sizes)
        if weights.startswith(PICKLE):
            raise CheckpointError(
                f"{model_id}: {weights} cannot be read in parts; download it first: surgeon scan "
                "reads pickles whole"
            )
        with ThreadPoolExecutor(reading.connections) as pool:
            config = pool.submit(repository.document, "config.json", _MAX_CONFIG)
            homes = _homes(repository, weights)
            names = sorted(set(homes.values())) or [weights]
            files = tuple(pool.map(repository.open, names))
            check_index(model_id, homes, {file.path.name: file.tensors for file in files})
            return RemoteModel(model_id, listing.commit, config.result(), files, repository)


@dataclass(eq=False)
class _Repository:
    """The one place that requests are made from: it counts and keeps what they bring."""

    model_id: str
    listing: Listing
    reading: Reading
    meter: Meter
    _fetched: dict[str, bytes] = field(default_factory=dict)  # tensor → its bytes
    _addresses: dict[str, str] = field(default_factory=dict)  # file → where the Hub sent us

    def open(self, name: str) -> RemoteFile:
        """Read and check the header of a safetensors file."""
        label = f"{self.model_id}/{name}"
        head, size = self._part(name, 0, self.reading.header_guess)
        length = header_length(label, head[:PREFIX], size)
        if (missing := PREFIX + length - len(head)) > 0:
            head += self._part(name, len(head), missing)[0]
        tensors, metadata = parse_header(label, head[PREFIX : PREFIX + length], size)
        return RemoteFile(PurePosixPath(label), tensors, metadata, self)

    def document(self, name: str, limit: int) -> dict[str, Any]:
        """Read a JSON object of at most ``limit`` bytes."""
        label = f"{self.model_id}/{name}"
        if name not in self.listing.sizes:
            raise CheckpointError(f"{label}: no such file; the model cannot be read without it")
        return parse_object(label, self._ask(name, None, limit)[0])

    def fetch(self, wanted: Iterable[tuple[RemoteFile, str]]) -> Mapping[str, bytes]:
        """Fetch tensors unless they were before, and return all that were."""
        missing: dict[str, list[TensorInfo]] = {}
        for file, name in wanted:
            if name not in self._fetched:
                missing.setdefault(file.path.name, []).append(file.tensors[name])
        runs = [
            (name, run) for name, infos in missing.items() for run in runs_of(infos, self.reading)
        ]
        with explained(self.model_id), ThreadPoolExecutor(self.reading.connections) as pool:
            list(pool.map(lambda run: self._fetch_run(*run), runs))
        return self._fetched

    def _fetch_run(self, name: str, run: list[TensorInfo]) -> None:
        start, end = run[0].start, run[-1].end
        raw = self._part(name, start, end - start)[0] if end > start else b""
        if len(raw) != end - start:
            raise CheckpointError(
                f"{self.model_id}/{name}: shorter than when it was opened; try again"
            )
        for info in run:
            self._fetched[info.name] = raw[info.start - start : info.end - start]

    def _part(self, name: str, start: int, length: int) -> tuple[bytes, int]:
        """Return ``length`` bytes of a file, or as many as it has from there, and its size."""
        if length > _MAX_PART:
            raise CheckpointError(
                f"{self.model_id}/{name}: {length} bytes are too many to read in one part; "
                "download the model"
            )
        return self._ask(name, start, length)

    def _ask(self, name: str, start: int | None, length: int) -> tuple[bytes, int]:
        return persist(lambda: self._ask_once(name, start, length), self.reading.patience)

    def _ask_once(self, name: str, start: int | None, length: int) -> tuple[bytes, int]:
        from huggingface_hub import hf_hub_url
        from huggingface_hub.errors import HfHubHTTPError

        if known := self._addresses.get(name):
            try:
                return self._receive(known, name, start, length)
            except HfHubHTTPError as error:
                status = error.response.status_code
                if status == 429 or status >= 500:
                    raise
                self._addresses[name] = ""  # it is good for one request, or has expired
        url = hf_hub_url(self.model_id, name, revision=self.listing.commit, endpoint=endpoint())
        return self._receive(url, name, start, length)

    def _receive(self, url: str, name: str, start: int | None, length: int) -> tuple[bytes, int]:
        """Return ``length`` bytes from ``start`` or, for None, a whole file of at most that many.

        The second value is the size of the whole file. No more is read than was asked for,
        whatever the server sends.
        """
        from huggingface_hub import constants
        from huggingface_hub.utils import (  # type: ignore[attr-defined]
            get_session,
            hf_raise_for_status,
        )

        label = f"{self.model_id}/{name}"
        headers = _headers(url)
        if start is not None:
            headers["Range"] = f"bytes={start}-{start + length - 1}"
        with get_session().stream(
            "GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT
        ) as response:
            hf_raise_for_status(response)
            listed = self.listing.sizes[name]
            announced, size = length, listed or 0
            if start is not None:
                announced, size = _content_range(label, response, start, length, listed)
            body = bytearray()
            try:
                for chunk in response.iter_raw():
                    body += chunk
                    if len(body) > announced:
                        break
            finally:
                self.meter.add(response.num_bytes_downloaded)
            if self.reading.keep_address and response.history:
                self._addresses.setdefault(name, str(response.url))
        if len(body) > announced or (start is not None and len(body) < announced):
            sent = f"over {announced}" if len(body) > announced else str(len(body))
            raise CheckpointError(f"{label}: {endpoint()} sent {sent} bytes instead of {announced}")
        return bytes(body), size


def _headers(url: str) -> dict[str, str]:
    """Return the headers of a request; the token goes to the Hub alone."""
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    # A token that is not asked for is False; None would have it looked up.
    token = None if url.startswith(f"{endpoint()}/") else False
    headers: dict[str, str] = build_hf_headers(token=token, library_name="norm-surgeon")
    # Compressed, a body would not be the bytes of the file.
    return headers | {"Accept-Encoding": "identity"}


def _content_range(
    label: str, response: Response, start: int, length: int, listed: int | None
) -> tuple[int, int]:
    """Return how long the body of a partial answer must be, and the size of the whole file."""
    if response.status_code != 206:
        raise CheckpointError(
            f"{label}: {endpoint()} sends whole files, not the part asked for; download the model "
            "and give its directory"
        )
    told = response.headers.get("Content-Range", "")
    numbers = re.fullmatch(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})", told)
    first, last, size = map(int, numbers.groups()) if numbers else (-1, -1, -1)
    fits = first == start and last == min(start + length, size) - 1
    if not fits or listed not in (None, size):
        raise CheckpointError(
            f"{label}: {endpoint()} answers {told!r} when asked for {length} bytes from {start} of "
            f"{listed}; it is damaged or lies"
        )
    return last - first + 1, size


def _homes(repository: _Repository, weights: str) -> Mapping[str, str]:
    """Return tensor → shard as the index says, or nothing for weights in one file."""
    if not weights.endswith(".json"):
        return {}
    label = f"{repository.model_id}/{weights}"
    check_index_size(repository.model_id, weights, repository.listing)
    homes = weight_map(label, repository.document(weights, MAX_INDEX))
    for shard in sorted(set(homes.values()) - repository.listing.sizes.keys()):
        raise CheckpointError(f"{label}: names {shard}, which is not there")
    return homes
