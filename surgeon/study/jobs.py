"""What engines pass around: jobs in, rows out. What a job is about, they do not know."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable
from typing import Any, Protocol, TypeAlias

from surgeon.errors import SurgeonError
from surgeon.harmless import shortened

Row: TypeAlias = dict[str, Any]
"""A line of results: plain JSON values by column."""

Work: TypeAlias = Callable[[Any], Row]
"""Does a job and returns columns of its row. It is pickled for each worker; what it keeps from one
job to the next is that worker's own."""

DONE, FAILED = "done", "failed"
_MAX_ERROR = 2000  # characters


class Job(Protocol):
    """A unit of a study, which gets one row."""

    @property
    def key(self) -> str:
        """What its row is found by, in this run and in later ones."""
        ...

    @property
    def group(self) -> Hashable:
        """What it has in common with other jobs, such as a model that is open for them."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Return the columns that say what it is, ``model`` among them."""
        ...


def do_job(job: Job, work: Work, delay: float = 0.0) -> Row:
    """Do a job after ``delay`` seconds. Whatever goes wrong with it is in its row."""
    time.sleep(delay)
    start = time.monotonic()
    try:
        columns = {"status": DONE, "error": None, **work(job)}
    except Exception as error:  # noqa: BLE001  (a job that fails costs one row, not the study)
        columns = {"status": FAILED, "error": describe(error)}
    return {**job.to_json(), **columns, "seconds": round(time.monotonic() - start, 3)}


def failed_row(job: Job, error: str) -> Row:
    """Return the row of a job whose worker was lost."""
    return {**job.to_json(), "status": FAILED, "error": error, "seconds": 0.0}


def describe(error: Exception) -> str:
    """Return an error's message: one line of bounded length, fit for a table and a terminal."""
    kind = "" if isinstance(error, SurgeonError) else f"{type(error).__name__}: "
    return f"{kind}{shortened(str(error), _MAX_ERROR)}"


class JobQueue:
    """The jobs that no worker has yet, handed out so that at most ``rate`` a second start."""

    def __init__(self, jobs: Iterable[Job], rate: float = math.inf) -> None:
        self._groups: dict[Hashable, deque[Job]] = {}
        self._taken: Counter[Hashable] = Counter()
        self._interval = 1 / rate
        self._next_start = time.monotonic()
        for job in jobs:
            self._groups.setdefault(job.group, deque()).append(job)

    def __len__(self) -> int:
        return sum(map(len, self._groups.values()))

    def take(self, after: Job | None = None) -> tuple[Job, float] | None:
        """Return a job for a worker that has just done ``after``, and how long it is to wait.

        It is of the same group where one is left, else of the one that fewest workers have begun.
        The worker waits, in seconds, not this process, which has rows to keep meanwhile.
        """
        if not self._groups:
            return None
        if after is not None and after.group in self._groups:
            group = after.group
        else:
            group = min(self._groups, key=self._taken.__getitem__)
            self._taken[group] += 1
        job = self._groups[group].popleft()
        if not self._groups[group]:
            del self._groups[group]
        now = time.monotonic()
        start = max(now, self._next_start)
        self._next_start = start + self._interval
        return job, start - now
