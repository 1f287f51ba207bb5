"""Jobs → rows: what is left to do, done by an engine, and each row on the disk before the next.

The journal, JSON lines, outlives a kill. Tables appear whole at the end, or not at all.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from surgeon.edit import disk
from surgeon.edit.staging import staged_file
from surgeon.errors import OutputError
from surgeon.model.files import parse_json
from surgeon.progress import Progress
from surgeon.study.engines import DONE, FAILED, Engine, Job, JobQueue, Row, Work

J = TypeVar("J", bound=Job)


@dataclass(frozen=True)
class Outlook:
    """How many jobs are done or have failed already, and how many are left to do.

    ``seconds`` is about how long that takes; None where there is nothing to tell it by.
    """

    done: int
    failed: int
    left: int
    seconds: float | None


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


def look_ahead(
    jobs: Sequence[Job], entries: Mapping[str, Entry], *, retry: bool, each: float | None
) -> Outlook:
    """Return what ``run_jobs`` would do; ``each`` is the seconds for a job, if that is known."""
    counts, left = _count(jobs, entries), len(_unfinished(jobs, entries, retry=retry))
    seconds = None if each is None else round(left * each, 1)
    return Outlook(counts[DONE], counts[FAILED], left, seconds)


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

    def report(ended: int) -> None:
        progress(f"{unit}, {failed} failed" if failed else unit, ended, len(jobs))

    report(kept)
    for ended, row in enumerate(engine(JobQueue(left, rate), work) if left else (), start=kept + 1):
        journal.append(row)
        failed += row["status"] == FAILED
        report(ended)
    reasons = Counter(
        reason_of(entries[job.key].error or "", job.to_json()["model"])
        for job in jobs
        if job.key in entries and entries[job.key].status == FAILED
    )
    counts = _count(jobs, entries)
    return Outcome(len(jobs), counts[DONE], counts[FAILED], kept, tuple(reasons.most_common()))


def _unfinished(jobs: Sequence[J], entries: Mapping[str, Entry], *, retry: bool) -> list[J]:
    ended = {key for key, entry in entries.items() if entry.status == DONE or not retry}
    return [job for job in jobs if job.key not in ended]


def _count(jobs: Iterable[Job], entries: Mapping[str, Entry]) -> Counter[str]:
    return Counter(entries[job.key].status for job in jobs if job.key in entries)


_SPECIFIC = (  # what differs between errors of a kind → what stands for it
    (r"^[\w./-]+\.safetensors: ", ""),
    (r"^no such file or directory here, and ", ""),
    (r";.*", ""),
    (r" \([^)]*\)", ""),
    (r"https?://[^\s,]+", "the Hub"),
    (r"'[^']*'", "'…'"),
    (r"(?<![\w./:-])\d+", "N"),
)


def reason_of(error: str, model: str) -> str:
    """Return an error without what is specific to the model, so that equal ones can be counted."""
    own = rf"^(\S*/)?{re.escape(model)}(@[^\s:]*)?[/:] ?"  # or its path, of which it is the end
    text = re.sub(own, "", error).replace(model, "MODEL")
    for pattern, plain in _SPECIFIC:
        text = re.sub(pattern, plain, text)
    return text


@dataclass(frozen=True)
class Layout:
    """What the journal of one kind of study looks like.

    ``study`` is what errors call it. Every row starts with ``start``. ``key`` returns the key of
    its job, and ``note`` what else of it is kept in memory. ``header`` is the first line where
    that is not a row.
    """

    study: str
    start: bytes
    key: Callable[[Row], str]
    note: Callable[[Row], Any]
    header: Row | None = None


@dataclass(frozen=True)
class Entry:
    """What is kept in memory of a row, which itself stays in the file, at byte ``start``."""

    start: int
    status: str
    error: str | None
    seconds: float
    note: Any


class Journal:
    """The rows of a study in an open file, each job's last one in ``entries`` by the job's key.

    ``header`` is that of the file, which gets one if it is empty and may be written to.

    Raises:
        OutputError: a line is not a row.
    """

    def __init__(self, path: Path, file: BinaryIO, layout: Layout) -> None:
        self._file, self._layout = file, layout
        self.header = layout.header
        self.entries: dict[str, Entry] = {}
        for number, (start, row) in enumerate(read_lines(path, file, layout), start=1):
            if number == 1 and layout.header is not None:
                if row.keys() != layout.header.keys():
                    raise not_a_row(path, number, layout)
                self.header = row
                continue
            try:
                self._remember(start, row)
            except (KeyError, TypeError, AttributeError) as error:
                raise not_a_row(path, number, layout) from error
        if layout.header is not None and file.writable() and file.seek(0, os.SEEK_END) == 0:
            self._write(layout.header)

    def append(self, row: Row) -> None:
        """Add a row, on the disk when this returns."""
        self._remember(self._write(row), row)

    def lines(self, keys: Iterable[str]) -> Iterator[bytes]:
        """Yield the rows of some keys as they are in the file."""
        for key in keys:
            self._file.seek(self.entries[key].start)
            yield self._file.readline()

    def rows(self, keys: Iterable[str]) -> Iterator[Row]:
        """Yield the rows of some keys; one is in memory at a time."""
        return map(json.loads, self.lines(keys))

    def _remember(self, start: int, row: Row) -> None:
        if row["status"] not in (DONE, FAILED):
            raise KeyError(row["status"])
        self.entries[self._layout.key(row)] = Entry(
            start, row["status"], row.get("error"), row.get("seconds", 0.0), self._layout.note(row)
        )

    def _write(self, row: Row) -> int:
        start = self._file.seek(0, os.SEEK_END)
        self._file.write(_line(row))
        self._file.flush()
        os.fsync(self._file.fileno())
        return start


def _line(row: Row) -> bytes:
    return json.dumps(row, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def read_lines(path: Path, file: BinaryIO, layout: Layout) -> Iterator[tuple[int, Row]]:
    """Yield where each line of a journal starts, and what it says.

    A last line that was cut off is left out. It is removed from a file that may be written to, if
    it begins as the line would: the file may be somebody's own.

    Raises:
        OutputError: a line is not a JSON object.
    """
    start = file.seek(0)
    for number, raw in enumerate(file, start=1):
        if not raw.endswith(b"\n"):
            whole = _line(layout.header) if number == 1 and layout.header else layout.start
            if not raw.startswith(whole[: len(raw)]):
                raise not_a_row(path, number, layout)
            if file.writable():
                file.truncate(start)
            return
        try:
            row: Any = parse_json(raw)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise not_a_row(path, number, layout)
        yield start, row
        start += len(raw)


def not_a_row(path: Path, number: int, layout: Layout) -> OutputError:
    """Return the error for a line that is not a row."""
    remedy = "choose another path" if number == 1 else "remove the line, or choose another path"
    return OutputError(f"{path}:{number}: is not a row of {layout.study}; {remedy}")


def lock_output(file: BinaryIO, output: Path) -> None:
    """Keep a file to this process for as long as it is open, where there are locks.

    Raises:
        OutputError: another process has it.
    """
    if disk.lock(file.fileno(), wait=False) is False:
        raise OutputError(f"`output` {output}: another run is writing there; wait for it")


PARQUET = ".parquet"


def check_table(output: Path, suffixes: Sequence[str], advice: str) -> None:
    """Refuse a file that could not be written in the end as its suffix says.

    Raises:
        OutputError: the suffix is not one of these, or is Parquet's and pyarrow is not installed.
    """
    suffix = output.suffix.lower()
    if suffix not in suffixes:
        found = f"the suffix {output.suffix}" if suffix else "no suffix"
        raise OutputError(f"`output` {output}: has {found}; {advice}")
    if suffix == PARQUET and not has_pyarrow():
        raise OutputError(
            f"`output` {output}: Parquet needs pyarrow; run: pip install 'norm-surgeon[study]'"
        )


def has_pyarrow() -> bool:
    """Tell whether Parquet can be written."""
    return importlib.util.find_spec("pyarrow") is not None


@contextlib.contextmanager
def open_table(path: Path, schema: Any, *, force: bool) -> Iterator[Any]:
    """Yield a ``ParquetWriter`` of a file that appears at the end.

    With ``force`` a table of the same columns is replaced, and anything else kept beside it.

    Raises:
        OutputError: something is there, and ``force`` is off.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    def is_table(there: Path) -> bool:
        try:
            return bool(pq.read_schema(there).names == schema.names)
        except (OSError, pa.ArrowException):
            return False

    ours = is_table if force else None
    with (
        staged_file(path, ours) as staging,
        pq.ParquetWriter(staging, schema, compression="zstd") as writer,
    ):
        yield writer


def with_types(table: Any, types: Mapping[str, Any], other: Any) -> Any:
    """Give each column without a value its type, or ``other``, as in tables of other runs."""
    import pyarrow as pa

    fields = [
        field.with_type(types.get(field.name, other)) if field.type == pa.null() else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields))
