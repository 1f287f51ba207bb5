"""Jobs → rows: what is left to do, done by an engine, each row kept as it comes."""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from surgeon.progress import Progress, duration
from surgeon.study.engines import Engine
from surgeon.study.jobs import DONE, FAILED, Job, JobQueue, Work
from surgeon.study.journal import Entry, Journal

J = TypeVar("J", bound=Job)


@dataclass(frozen=True)
class Outlook:
    """How many jobs are done or have failed already, and how many are left to do.

    ``seconds`` is about how long that takes; None where there is nothing to tell it by.
    """

    done: int
    failed: int
    left: int
    seconds: float | None = None


@dataclass(frozen=True)
class Outcome:
    """How many jobs of a study did what.

    ``kept`` of the ``total`` have ended in an earlier run. ``reasons`` are those of the failures
    with their number, the most frequent first.
    """

    total: int
    done: int
    failed: int
    kept: int
    reasons: tuple[tuple[str, int], ...]

    def counts(self, unit: str) -> dict[str, Any]:
        """Return its part of a JSON document, in which ``unit`` stands for the jobs."""
        reasons = [{"reason": reason, unit: number} for reason, number in self.reasons]
        return {
            unit: self.total,
            "done": self.done,
            "failed": self.failed,
            "kept": self.kept,
            "reasons": reasons,
        }


def look_ahead(jobs: Sequence[Job], entries: Mapping[str, Entry], *, retry: bool) -> Outlook:
    """Return what ``run_jobs`` would do."""
    counts = _count(jobs, entries)
    return Outlook(counts[DONE], counts[FAILED], len(_unfinished(jobs, entries, retry=retry)))


def run_jobs(
    jobs: Sequence[Job],
    work: Work,
    journal: Journal,
    engine: Engine,
    *,
    unit: str,
    progress: Progress,
    retry: bool,
    rate: float = math.inf,
) -> Outcome:
    """Do the jobs that have no row yet, each of whose rows is in the journal once it is done.

    Args:
        jobs: of the whole study.
        work: how a job is done.
        journal: has the rows of earlier runs.
        engine: what does the jobs.
        unit: what progress calls them.
        progress: gets the number of those that have ended.
        retry: whether jobs that failed in an earlier run are done again.
        rate: how many start per second at most.
    """
    entries = journal.entries
    left = _unfinished(jobs, entries, retry=retry)
    kept = len(jobs) - len(left)
    failed = 0 if retry else _count(jobs, entries)[FAILED]
    progress(_describe(kept, failed, len(jobs), unit), kept, len(jobs))
    first = 0.0
    for ended, row in enumerate(engine(JobQueue(left, rate), work) if left else (), start=kept + 1):
        journal.append(row)
        failed += row["status"] == FAILED
        now = time.monotonic()
        first = first or now  # before, workers started and models were exported
        pace = (ended - kept - 1) / (now - first) if now > first else 0.0
        progress(_describe(ended, failed, len(jobs), unit, pace), ended, len(jobs))
    reasons = Counter(
        reason_of(entries[job.key].error or "", job.to_json()["model"])
        for job in jobs
        if job.key in entries and entries[job.key].status == FAILED
    )
    counts = _count(jobs, entries)
    return Outcome(len(jobs), counts[DONE], counts[FAILED], kept, tuple(reasons.most_common()))


def _unfinished(jobs: Sequence[J], entries: Mapping[str, Entry], *, retry: bool) -> list[J]:
    ended = {DONE} if retry else {DONE, FAILED}
    return [job for job in jobs if job.key not in entries or entries[job.key].status not in ended]


def _count(jobs: Iterable[Job], entries: Mapping[str, Entry]) -> Counter[str]:
    return Counter(entries[job.key].status for job in jobs if job.key in entries)


def _describe(ended: int, failed: int, total: int, unit: str, pace: float = 0.0) -> str:
    """Say how far a study is, and at ``pace`` jobs a second how long the rest takes."""
    text = f"{ended} of {total} {unit}" + (f", {failed} failed" if failed else "")
    if not pace or ended == total:
        return text
    return f"{text}, {pace:.2g} a second, about {duration((total - ended) / pace)} left"


_SPECIFIC = (  # what differs between errors of a kind → what stands for it
    (r"^[\w.-]+\.(json|safetensors): ", ""),
    (r"^no such file or directory here, and ", ""),
    (r";.*", ""),
    (r" \([^)]*\)", ""),
    (r"https?://[^\s,]+", "the Hub"),
    (r"'[^']*'", "'…'"),
    (r"(?<![\w./:-])\d+", "N"),
)


def reason_of(error: str, model: str) -> str:
    """Return an error without what is specific to the model, so that equal ones can be counted."""
    text = re.sub(rf"^{re.escape(model)}[^\s:]*: ", "", error).replace(model, "MODEL")
    for pattern, plain in _SPECIFIC:
        text = re.sub(pattern, plain, text)
    return text
