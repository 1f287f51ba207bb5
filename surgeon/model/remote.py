"""A model on the Hub, read by HTTP range requests: its headers and the tensors asked for alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from surgeon.errors import CheckpointError
from surgeon.model.files import parse_object
from surgeon.model.hub import (
    Listing,
    check_index_size,
    list_weights,
)
from surgeon.model.hub_errors import explained
from surgeon.model.ranges import (
    QUICK,
    Meter,
    RangeReader,
    Reading,
    runs_of,
)
from surgeon.model.safetensors_file import (
    PREFIX,
    TensorInfo,
    editable_dtype,
    header_length,
    parse_header,
)
from surgeon.model.torch_pickle import (
    PickleDirectory,
    StorageHead,
    read_directory,
)
from surgeon.model.weight_files import (
    MAX_INDEX,
    check_index,
    weight_map,
)

_MAX_CONFIG = 10_000_000
_PICKLE_BLOCK = 32 * 1024  # bytes of a pickle's directory that are read together
# Bytes of a tensor that is kept when it was read: a norm's, and no dense layer's.
_MOST_KEPT = 2**20


@dataclass(frozen=True, eq=False)
class RemoteFile:
    """A weight file on the Hub, with the interface of ``SafetensorsFile``.

    ``path`` is its place below the Hub's address; ``tensors`` is in the order of the header.
    ``pickled`` is the directory of a pickle, None for safetensors.
    """

    path: PurePosixPath
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    _repository: _Repository = field(repr=False)
    pickled: PickleDirectory | None = field(default=None, repr=False)

    def read(self, name: str) -> npt.NDArray[Any]:
        """Return one floating-point tensor, fetched now if ``prefetch`` did not.

        A large one is forgotten, and fetched again if it is read again.

        Raises:
            CheckpointError: the dtype is not one of ``dtypes.FLOATS``, or it cannot be had.
        """
        info = self.tensors[name]
        dtype = editable_dtype(str(self.path), info)
        raw = self._repository.take(self, name)
        return np.frombuffer(raw, dtype=dtype).reshape(info.shape)

    def prefetch(self, names: Iterable[str]) -> None:
        """Fetch tensors for ``read``, several at a time, near ones in one request.

        Raises:
            CheckpointError: they cannot be had.
        """
        self._repository.fetch([(self, name) for name in names])

    def head(self, name: str) -> StorageHead | None:
        """Return what is read with a pickled tensor, to check that it lies there."""
        if self.pickled is None:
            return None
        if name in self.pickled.strides:
            raise CheckpointError(
                f"{self.path}: {name} does not lie in one piece, so it cannot be read in parts; "
                f"download the model (hf download {self.path.parent} --local-dir DIR) and give DIR"
            )
        return self.pickled.heads.get(name)


@dataclass(frozen=True, eq=False)
class RemoteModel:
    """A model on the Hub at one commit: its configuration, and the headers of its files.

    ``conversion`` is the pull request that it is of, as in ``Listing``.
    """

    model_id: str
    revision: str
    conversion: str | None
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
        return self._repository.ranges.meter.received


def open_remote(
    model_id: str,
    revision: str | None = None,
    *,
    reading: Reading = QUICK,
    meter: Meter | None = None,
    listing: Listing | None = None,
) -> RemoteModel:
    """Read a model's configuration and the headers of its weights, without downloading it.

    Args:
        model_id: the repository.
        revision: a branch, a tag or a commit (None: the default branch).
        reading: whether bytes or round trips are to be few, and how long an outage is waited for.
        meter: counts the bytes received, those of a model that turns out unreadable too.
        listing: its files, if they were asked for already.

    Raises:
        CheckpointError: the repository cannot be had, or what the server sends is not what was
            asked for.
    """
    with explained(model_id, revision):
        listing = listing or list_weights(model_id, revision, reading.policy)
        weights = listing.weights
        assert weights is not None  # of list_weights
        name = listing.model_id
        repository = _Repository(RangeReader(name, listing, reading, meter or Meter()))
        with ThreadPoolExecutor(reading.connections) as pool:
            config = pool.submit(repository.document, "config.json", _MAX_CONFIG)
            homes = _homes(repository, weights)
            names = sorted(set(homes.values())) or [weights]
            files = tuple(pool.map(repository.open, names))
            check_index(name, homes, {file.path.name: file.tensors for file in files})
            return RemoteModel(
                name, listing.commit, listing.conversion, config.result(), files, repository
            )


@dataclass(eq=False)
class _Repository:
    """A repository's headers, documents and tensors; what was fetched is kept until it is taken."""

    ranges: RangeReader
    _fetched: dict[str, bytes] = field(default_factory=dict)  # tensor → its bytes

    def open(self, name: str) -> RemoteFile:
        """Read and check the header of a safetensors file, or the directory of a pickle."""
        label = self.ranges.label(name)
        if not name.endswith(".safetensors"):
            return self._open_pickle(name)
        head, size = self.ranges.part(name, 0, self.ranges.reading.header_guess)
        length = header_length(label, head[:PREFIX], size)
        if (missing := PREFIX + length - len(head)) > 0:
            head += self.ranges.part(name, len(head), missing)[0]
        tensors, metadata = parse_header(label, head[PREFIX : PREFIX + length], size)
        return RemoteFile(PurePosixPath(label), tensors, metadata, self)

    def _open_pickle(self, name: str) -> RemoteFile:
        label, size = self.ranges.label(name), self.ranges.listing.sizes[name]
        if size is None:
            size = self.ranges.part(name, 0, 1)[1]
        block = max(self.ranges.reading.header_guess, _PICKLE_BLOCK)

        def part(start: int, length: int) -> bytes:
            return self.ranges.part(name, start, length)[0]

        found = read_directory(label, size, part, block=block, on_disk=False)
        return RemoteFile(PurePosixPath(label), found.tensors, {}, self, found)

    def document(self, name: str, limit: int) -> dict[str, Any]:
        """Read a JSON object of at most ``limit`` bytes."""
        label = self.ranges.label(name)
        if name not in self.ranges.listing.sizes:
            raise CheckpointError(f"{label}: no such file; the model cannot be read without it")
        return parse_object(label, self.ranges.whole(name, limit))

    def take(self, file: RemoteFile, name: str) -> bytes:
        """Return a tensor's bytes, and keep them only if they are few."""
        self.fetch([(file, name)])
        raw = self._fetched[name]
        if len(raw) > _MOST_KEPT:
            del self._fetched[name]
        return raw

    def fetch(self, wanted: Iterable[tuple[RemoteFile, str]]) -> None:
        """Fetch tensors unless they are kept from before."""
        missing: dict[str, list[TensorInfo]] = {}
        heads: dict[str, StorageHead] = {}
        for file, name in wanted:
            if name in self._fetched:
                continue
            spans = missing.setdefault(file.path.name, [])
            spans.append(file.tensors[name])
            if (head := file.head(name)) is not None:
                # No tensor has such a name: a file's does not begin with a slash.
                place = f"/{file.path}:{head.start}"
                heads[place] = head
                spans.append(TensorInfo(place, "U8", (), head.start, head.end))
        reading = self.ranges.reading
        runs = [(name, run) for name, infos in missing.items() for run in runs_of(infos, reading)]
        with (
            explained(self.ranges.model_id),
            ThreadPoolExecutor(reading.connections) as pool,
        ):
            list(pool.map(lambda run: self._fetch_run(*run), runs))
        for place, head in heads.items():
            if not head.is_right(self._fetched.pop(place)):
                raise CheckpointError(
                    f"{place[1:].partition(':')[0]}: a tensor does not lie where its directory "
                    "says; it is damaged: fetch it again"
                )

    def _fetch_run(self, name: str, run: list[TensorInfo]) -> None:
        start, end = run[0].start, max(info.end for info in run)
        raw = self.ranges.part(name, start, end - start)[0] if end > start else b""
        if len(raw) != end - start:
            raise CheckpointError(
                f"{self.ranges.label(name)}: shorter than when it was opened; try again"
            )
        for info in run:
            self._fetched[info.name] = raw[info.start - start : info.end - start]


def _homes(repository: _Repository, weights: str) -> Mapping[str, str]:
    """Return tensor → shard as the index says, or nothing for weights in one file."""
    if not weights.endswith(".json"):
        return {}
    ranges = repository.ranges
    label = ranges.label(weights)
    check_index_size(ranges.model_id, weights, ranges.listing)
    homes = weight_map(label, repository.document(weights, MAX_INDEX))
    for shard in sorted(set(homes.values()) - ranges.listing.sizes.keys()):
        raise CheckpointError(f"{label}: names {shard}, which is not there")
    return homes
