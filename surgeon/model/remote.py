"""A model on the Hub, read by HTTP range requests: its headers and the tensors asked for alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from surgeon.errors import CheckpointError
from surgeon.model.checkpoint import CONFIG, Checkpoint, count_weights
from surgeon.model.files import parse_object
from surgeon.model.hub import Listing, list_weights, read_shards
from surgeon.model.hub_errors import explained
from surgeon.model.ranges import QUICK, ByteRange, Meter, RangeReader, Reading, runs_of
from surgeon.model.tensors import PREFIX, TensorFile, header_length, parse_header
from surgeon.model.torch_pickle import PickleDirectory, StorageHead, read_directory
from surgeon.model.weight_files import MAX_INDEX, check_index

_MAX_CONFIG = 10_000_000
_PICKLE_BLOCK = 32 * 1024  # bytes of a pickle's directory that are read together
# Bytes of a tensor that is kept when it was read: a norm's, and no dense layer's.
_MOST_KEPT = 2**20


@dataclass(frozen=True, eq=False)
class RemoteWeights(TensorFile):
    """The weight files of a repository, read as one; ``path`` is the repository's id.

    ``homes`` is the file of each tensor, and ``heads`` what is read with a pickled one, to check
    that it lies there. Those in ``scattered`` do not lie in one piece.
    """

    ranges: RangeReader
    homes: Mapping[str, str]
    heads: Mapping[str, StorageHead]
    scattered: frozenset[str]
    _fetched: dict[str, bytes] = field(default_factory=dict, repr=False)  # tensor → its bytes

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield a tensor, fetched now if ``prefetch`` did not; a large one is then forgotten."""
        self.prefetch([name])
        raw = self._fetched[name]
        if len(raw) > _MOST_KEPT:
            del self._fetched[name]
        yield raw

    def prefetch(self, names: Iterable[str]) -> None:
        """Fetch tensors, several at a time, near ones in one request, unless they are kept.

        Raises:
            CheckpointError: they cannot be fetched.
        """
        wanted = [name for name in names if name not in self._fetched]
        if not wanted:
            return
        spans = defaultdict[str, set[ByteRange]](set)
        for name in wanted:
            spans[self.homes[name]].update(self._spans(name))
        reading = self.ranges.reading
        runs = [(file, run) for file, found in spans.items() for run in runs_of(found, reading.gap)]
        received: dict[tuple[str, ByteRange], bytes] = {}
        with explained(str(self.path)), ThreadPoolExecutor(reading.connections) as pool:
            for contents in pool.map(lambda run: self._fetch(*run), runs):
                received.update(contents)
        for name in wanted:
            content, *head = (received[self.homes[name], span] for span in self._spans(name))
            if head and not self.heads[name].is_right(head[0]):
                raise CheckpointError(
                    f"{self.ranges.label(self.homes[name])}: a tensor does not lie where its "
                    "directory says; it is damaged: fetch it again"
                )
            self._fetched[name] = content

    def _spans(self, name: str) -> list[ByteRange]:
        if name in self.scattered:
            raise CheckpointError(
                f"{self.ranges.label(self.homes[name])}: {name} does not lie in one piece, so it "
                f"cannot be read in parts; download the model (hf download {self.path} --local-dir "
                "DIR) and give DIR"
            )
        info, head = self.tensors[name], self.heads.get(name)
        content = ByteRange(info.start, info.end)
        return [content] if head is None else [content, ByteRange(head.start, head.end)]

    def _fetch(self, file: str, run: list[ByteRange]) -> dict[tuple[str, ByteRange], bytes]:
        start, end = run[0].start, max(span.end for span in run)
        raw = self.ranges.part(file, start, end - start)[0] if end > start else b""
        if len(raw) != end - start:
            raise CheckpointError(
                f"{self.ranges.label(file)}: shorter than when it was opened; try again"
            )
        return {(file, span): raw[span.start - start : span.end - start] for span in run}


def open_remote(
    model_id: str,
    revision: str | None = None,
    *,
    sites_pattern: str | None = None,
    reading: Reading = QUICK,
    meter: Meter | None = None,
    listing: Listing | None = None,
) -> Checkpoint:
    """Read a model's configuration and the headers of its weights, without downloading it.

    Args:
        model_id: the repository.
        revision: a branch, a tag or a commit (None: the default branch).
        sites_pattern: as ``open_checkpoint``.
        reading: whether bytes or round trips are to be few, and how long an outage is waited for.
        meter: counts the bytes received, those of a model that turns out unreadable too.
        listing: its files, if they were asked for already.

    Raises:
        CheckpointError: the repository cannot be read, or what the server sends is not what was
            asked for.
    """
    with explained(model_id, revision):
        listing = listing or list_weights(model_id, revision, reading.policy)
        weights, meter = listing.weights, meter or Meter()
        assert weights is not None  # of list_weights
        ranges = RangeReader(listing, reading, meter)
        with ThreadPoolExecutor(reading.connections) as pool:
            config = pool.submit(_read_config, ranges)
            index = read_shards(listing, lambda name: ranges.whole(name, MAX_INDEX))
            names = sorted(set(index.values())) or [weights]
            found = dict(zip(names, pool.map(partial(_find_tensors, ranges), names), strict=True))
            check_index(listing.model_id, index, {n: found[n].tensors for n in names})
            file = RemoteWeights(
                Path(listing.model_id),
                {name: info for part in found.values() for name, info in part.tensors.items()},
                ranges,
                {name: file for file, part in found.items() for name in part.tensors},
                {name: head for part in found.values() for name, head in part.heads.items()},
                frozenset(name for part in found.values() for name in part.strides),
            )
            return Checkpoint(
                name=listing.model_id,
                directory=file.path,
                config=config.result(),
                files=(file,),
                parameters_total=count_weights([file]),
                revision=listing.commit,
                sites_pattern=sites_pattern,
                conversion=listing.conversion,
                meter=meter,
            )


def _read_config(ranges: RangeReader) -> dict[str, Any]:
    label = ranges.label(CONFIG)
    if CONFIG not in ranges.listing.sizes:
        raise CheckpointError(f"{label}: no such file; the model cannot be read without it")
    return parse_object(label, ranges.whole(CONFIG, _MAX_CONFIG))


def _find_tensors(ranges: RangeReader, name: str) -> PickleDirectory:
    """Read and check the header of a safetensors file, or the directory of a pickle."""
    label, guess = ranges.label(name), ranges.reading.header_guess
    if not name.endswith(".safetensors"):
        size = ranges.listing.sizes[name]
        if size is None:
            size = ranges.part(name, 0, 1)[1]
        block = max(guess, _PICKLE_BLOCK)
        part = lambda start, length: ranges.part(name, start, length)[0]  # noqa: E731
        return read_directory(label, size, part, block=block, on_disk=False)
    head, size = ranges.part(name, 0, guess)
    length = header_length(label, head[:PREFIX], size)
    if (missing := PREFIX + length - len(head)) > 0:
        head += ranges.part(name, len(head), missing)[0]
    tensors, _ = parse_header(label, head[PREFIX : PREFIX + length], size)
    return PickleDirectory(tensors, {}, {})
