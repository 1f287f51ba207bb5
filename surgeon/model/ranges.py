"""Parts of a repository's files by HTTP range requests: no more than was asked for, and counted."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from surgeon.errors import CheckpointError, HubUnavailableError
from surgeon.model.hub import Listing
from surgeon.model.hub_errors import PATIENT, SHORT, RetryPolicy, endpoint, may_pass, retry
from surgeon.model.tensors import PREFIX

if TYPE_CHECKING:
    from httpx2 import Response
    from huggingface_hub.errors import HfHubHTTPError


_MAX_PART = 2**30  # bytes; who needs more in one piece should have the file


@dataclass(eq=False)
class RangeReader:
    """The one place that requests for weights are made from.

    The server is not trusted: what it sends is checked against what was asked for and against
    the listing. ``meter`` counts all that comes.
    """

    listing: Listing
    reading: Reading
    meter: Meter
    _addresses: dict[str, str] = field(default_factory=dict)  # file → where the Hub sent us

    def label(self, name: str) -> str:
        """Return what errors call a file."""
        return f"{self.listing.model_id}/{name}"

    def whole(self, name: str, limit: int) -> bytes:
        """Return a file of at most ``limit`` bytes."""
        return self._ask(name, None, limit)[0]

    def part(self, name: str, start: int, length: int) -> tuple[bytes, int]:
        """Return ``length`` bytes of a file, or as many as it has from there, and its size."""
        if length > _MAX_PART:
            raise CheckpointError(
                f"{self.label(name)}: {length} bytes are too many to read in one part; "
                "download the model"
            )
        return self._ask(name, start, length)

    def _ask(self, name: str, start: int | None, length: int) -> tuple[bytes, int]:
        return retry(lambda: self._ask_once(name, start, length), self.reading.policy)

    def _ask_once(self, name: str, start: int | None, length: int) -> tuple[bytes, int]:
        from huggingface_hub import hf_hub_url
        from huggingface_hub.errors import HfHubHTTPError

        if known := self._addresses.get(name):
            try:
                return self._receive(known, name, start, length)
            except HfHubHTTPError as error:
                if may_pass(error):
                    raise
                self._addresses[name] = ""  # it is good for one request, or has expired
        url = hf_hub_url(
            self.listing.model_id, name, revision=self.listing.commit, endpoint=endpoint()
        )
        try:
            return self._receive(url, name, start, length)
        except HfHubHTTPError as error:
            location = self._on_the_hub_itself(url, error)
            if location is None:
                raise
        return self._receive(location, name, start, length)

    def _on_the_hub_itself(self, url: str, error: HfHubHTTPError) -> str | None:
        """Return where a mirror's redirect to the Hub leads with the token, which httpx2 drops."""
        from huggingface_hub import get_hf_file_metadata

        if error.response.status_code not in (401, 403) or not error.response.history:
            return None
        location = get_hf_file_metadata(url, headers=_headers(url), endpoint=endpoint()).location
        return location if location != url else None

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

        label = self.label(name)
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
            if response.history:
                self._addresses.setdefault(name, str(response.url))
        if len(body) > announced or (start is not None and len(body) < announced):
            sent = f"over {announced}" if len(body) > announced else str(len(body))
            raise HubUnavailableError(
                f"{label}: {endpoint()} sent {sent} bytes instead of {announced}; try again"
            )
        return bytes(body), size


def _headers(url: str) -> dict[str, str]:
    """Return the headers of a request; the token goes to the Hub alone."""
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]
    from huggingface_hub.utils._http import _is_same_or_hub_host

    # A token that is not asked for is False; None would have it looked up.
    token = None if _is_same_or_hub_host(f"{endpoint()}/", url) else False
    headers: dict[str, str] = build_hf_headers(token=token, library_name="norm-surgeon")
    # Compressed, a body would not be the bytes of the file.
    return headers | {"Accept-Encoding": "identity"}


def _content_range(
    label: str, response: Response, start: int, length: int, listed: int | None
) -> tuple[int, int]:
    """Return how long the body of a partial answer must be, and the size of the whole file."""
    if response.status_code != 206:
        raise HubUnavailableError(
            f"{label}: {endpoint()} sends whole files, not the part asked for; download the model "
            "and give its directory"
        )
    sent = response.headers.get("Content-Range", "")
    numbers = re.fullmatch(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})", sent)
    first, last, size = map(int, numbers.groups()) if numbers else (-1, -1, -1)
    fits = first == start and last == min(start + length, size) - 1
    if not fits or listed not in (None, size):
        raise HubUnavailableError(
            f"{label}: {endpoint()} answers {sent!r} when asked for {length} bytes from {start} of "
            f"{listed}: an invalid Content-Range; try again"
        )
    return last - first + 1, size


@dataclass(frozen=True)
class Reading:
    """What a request costs against a byte.

    ``header_guess`` is how many bytes the first request for a header asks for. Two tensors come
    in one request if less than ``gap`` bytes lie between them.
    """

    header_guess: int = 128 * 1024  # holds most headers whole
    gap: int = 64 * 1024  # cheaper to read than to leave out
    connections: int = 8
    policy: RetryPolicy = SHORT


QUICK = Reading()
FRUGAL = Reading(header_guess=PREFIX, gap=1024, connections=4, policy=PATIENT)


@dataclass(eq=False)
class Meter:
    """Counts the bytes of a model's files that were received, whatever became of them."""

    received: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, count: int) -> None:
        """Count more; several threads may."""
        with self._lock:
            self.received += count


class ByteRange(NamedTuple):
    """Bytes of a file, from ``start`` to before ``end``."""

    start: int
    end: int


def runs_of(spans: Iterable[ByteRange], gap: int) -> Iterator[list[ByteRange]]:
    """Yield spans of a file in runs with gaps below ``gap``, each to be read in one piece."""
    run: list[ByteRange] = []
    for span in sorted(spans):
        if run and span.start - max(before.end for before in run) >= gap:
            yield run
            run = []
        run.append(span)
    if run:
        yield run
