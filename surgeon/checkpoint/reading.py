"""How a model on the Hub is read: in few round trips for a person, in few bytes for an atlas."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby, pairwise

from surgeon.checkpoint.retry import PATIENT, SHORT, RetryPolicy
from surgeon.checkpoint.safetensors_file import PREFIX, TensorInfo


@dataclass(frozen=True)
class Reading:
    """What a request costs against a byte.

    ``header_guess`` is how many bytes the first request for a header asks for. Two tensors come
    in one request if less than ``gap`` bytes lie between them; so do those that are nearest to
    each other as long as all that is read between them is at most ``slack`` of what is wanted.
    """

    header_guess: int = 128 * 1024  # holds most headers whole
    gap: int = 64 * 1024  # cheaper to read than to leave out
    slack: float = 0.0
    connections: int = 8
    policy: RetryPolicy = SHORT


QUICK = Reading()
FRUGAL = Reading(header_guess=PREFIX, gap=1, slack=0.05, connections=4, policy=PATIENT)


@dataclass(eq=False)
class Meter:
    """Counts the bytes of a model's files that were received, whatever became of them."""

    received: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, count: int) -> None:
        """Count more; several threads may."""
        with self._lock:
            self.received += count


def runs_of(infos: list[TensorInfo], reading: Reading) -> Iterator[list[TensorInfo]]:
    """Yield tensors of a file in runs, each to be read in one piece, the gaps in it included."""
    ordered = sorted(infos, key=lambda info: (info.start, info.end))
    limit = max(reading.gap, _affordable_gap(ordered, reading.slack) + 1)
    run: list[TensorInfo] = []
    for info in ordered:
        if run and info.start - max(before.end for before in run) >= limit:
            yield run
            run = []
        run.append(info)
    if run:
        yield run


def _affordable_gap(ordered: list[TensorInfo], slack: float) -> int:
    """Return the largest gap that, read with all smaller ones, keeps within ``slack``."""
    left = slack * sum(info.end - info.start for info in ordered)
    gaps = sorted(max(0, after.start - before.end) for before, after in pairwise(ordered))
    largest = 0
    for gap, equal in groupby(gaps):
        left -= gap * len(list(equal))
        if left < 0:
            break
        largest = gap
    return largest
