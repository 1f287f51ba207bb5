"""Jobs in, rows out: what runs a study's jobs, processes on this machine or Ray."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from multiprocessing import connection
from typing import Any, Protocol, TypeAlias

from surgeon.errors import SelectionError, SurgeonError
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


Engine: TypeAlias = Callable[[JobQueue, Work], Iterator[Row]]
"""Yields a row for each job, in any order, as it is done."""

_GRACE = 10  # seconds for libraries to clean up, or for a cluster to accept a connection


def choose_engine(
    name: str, workers: int, address: str | None = None, cpus: float = 1, gpus: float = 0
) -> Engine:
    """Return an engine by name, with its settings.

    Raises:
        SelectionError: it does not take these settings, or Ray is not installed.
    """
    if workers < 1:
        raise SelectionError(f"`workers` {workers}: give a number of 1 or more")
    for option, count in (("`cpus`", cpus), ("`gpus`", gpus)):
        if not 0 <= count < math.inf:
            raise SelectionError(f"{option} {count:g}: give a number of 0 or more")
        if count > 1 and count % 1:
            raise SelectionError(f"{option} {count:g}: above 1, Ray takes whole numbers only")
    if name == "ray":
        if importlib.util.find_spec("ray") is None:
            raise SelectionError("`engine` ray: takes Ray; run: pip install 'norm-surgeon[ray]'")
        return partial(run_ray, workers=workers, address=address, cpus=cpus, gpus=gpus)
    of_ray = {"`address`": address is not None, "`cpus`": cpus != 1, "`gpus`": gpus != 0}
    for option in (option for option, given in of_ray.items() if given):
        raise SelectionError(f"{option}: is for `engine` ray; give that too, or leave it out")
    return partial(run_local, workers=workers)


def run_local(queue: JobQueue, work: Work, workers: int) -> Iterator[Row]:
    """Yield a row for each job as it is done, in any order, from ``workers`` processes."""
    return _rows(queue, workers, lambda number: _Process(work, number, workers), connection.wait)


def run_ray(
    queue: JobQueue, work: Work, workers: int, address: str | None, cpus: float, gpus: float
) -> Iterator[Row]:
    """Yield a row for each job as it is done, in any order, from ``workers`` actors.

    Args:
        queue: what to do.
        work: how; a folder in it is made on each node.
        workers: how many actors at most; the scheduler starts as many as there is room for.
        address: of a running cluster ("auto" finds one); None starts one on this machine.
        cpus: what each actor declares, as Ray counts them.
        gpus: the same.

    Raises:
        SelectionError: no cluster answers at the address, or none of its nodes has what an actor
            declares.
    """
    import ray

    begun = not ray.is_initialized()
    if begun:
        _connect(ray, address)
    try:
        _check_room(ray.nodes(), cpus, gpus)
        remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0)(_Actor)
        yield from _rows(
            queue,
            workers,
            lambda _: _ActorHandle(ray, remote.remote(work)),
            lambda handles: ray.wait(handles, num_returns=1)[0],
        )
    finally:
        if begun:
            ray.shutdown()


class _WorkerLostError(Exception):
    """A worker's process, or the node that it was on, has died."""


def _rows(
    queue: JobQueue,
    count: int,
    start: Callable[[int], _Process | _ActorHandle],
    wait: Callable[[list[Any]], Sequence[Any]],
) -> Iterator[Row]:
    workers: dict[int, _Process | _ActorHandle] = {}
    busy: dict[Any, tuple[int, Job]] = {}

    def give(number: int, after: Job | None) -> None:
        taken = queue.take(after)
        if taken is not None:
            busy[workers[number].send(*taken)] = number, taken[0]

    try:
        for number in range(min(count, len(queue))):
            workers[number] = start(number)
        for number in workers:
            give(number, None)
        while busy:
            for handle in wait(list(busy)):
                number, job = busy.pop(handle)
                try:
                    row = workers[number].receive(handle)
                except _WorkerLostError as error:
                    row = {**job.to_json(), "status": FAILED, "error": str(error), "seconds": 0.0}
                    if queue:
                        workers[number] = start(number)
                give(number, job)  # so that it is busy while the row is kept
                yield row
    finally:
        still_busy = {number for number, _ in busy.values()}
        for number, worker in workers.items():
            worker.dismiss(busy=number in still_busy)
        for worker in workers.values():
            worker.join()


class _Process:
    """A process on this machine, and the pipe to it."""

    def __init__(self, work: Work, number: int, workers: int) -> None:
        # Not forked: onnxruntime and torch do not survive a fork once their threads run.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, work, number, workers), daemon=True
        )
        with _ignore_sigint():
            self._process.start()
        theirs.close()

    def send(self, job: Job, delay: float) -> connection.Connection:
        """Give it a job; returns what to wait on for the row."""
        # A process that has died meanwhile is found by what it does not answer.
        with contextlib.suppress(OSError):
            self._pipe.send((job, delay))
        return self._pipe

    def receive(self, handle: connection.Connection) -> Row:
        try:
            row: Row = handle.recv()
        except (EOFError, OSError) as error:
            self._process.join()
            code = self._process.exitcode or 0
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise _WorkerLostError(
                f"its process ended with {how}; SIGKILL is most often a lack of memory"
            ) from error
        return row

    def dismiss(self, *, busy: bool) -> None:
        """Have it end: at once if it has a job, for which nobody waits any more."""
        self._pipe.close()
        if busy:
            self._process.terminate()

    def join(self) -> None:
        self._process.join(_GRACE)
        self._process.kill()  # where native code kept the signal from it
        self._process.join()


@contextlib.contextmanager
def _ignore_sigint() -> Iterator[None]:
    """Ignore Ctrl-C, which is inherited: a process that starts up would show a traceback."""
    if threading.current_thread() is not threading.main_thread():
        yield  # no other may set what a signal does
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _serve(pipe: connection.Connection, work: Work, number: int, workers: int) -> None:
    """Do the jobs that come through the pipe, until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and stops the workers
    # An orderly end: half-made exports go, and so do the semaphores of libraries. Where a library
    # holds the exit up, it is killed, and the next run removes what that leaves.
    for ending in {signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}:
        signal.signal(ending, lambda number, frame: sys.exit(128 + number))  # noqa: ARG005
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    _take_share_of_cores(number, workers)
    with contextlib.suppress(EOFError, OSError):  # the parent is gone: so is the run
        while True:
            job, delay = pipe.recv()
            pipe.send(do_job(job, work, delay))


def _end_with_the_parent() -> None:
    """End this process when its parent is gone: it may have hours of work that nobody waits for."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE)
    os._exit(1)  # native code kept the signal from it


def _take_share_of_cores(number: int, workers: int) -> None:
    """Keep this process to its share, which the sizes of thread pools follow."""
    if not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[number % len(cores) :: workers] or cores[:1])


class _Actor:
    """A worker in a process of Ray's."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def row(self, job: Any, delay: float) -> Row:
        return do_job(job, self._work, delay)


class _ActorHandle:
    """What this process has of an actor."""

    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray, self._actor = ray, actor

    def send(self, job: Job, delay: float) -> Any:
        return self._actor.row.remote(job, delay)

    def receive(self, handle: Any) -> Row:
        try:
            row: Row = self._ray.get(handle)
        except self._ray.exceptions.RayError as error:
            raise _WorkerLostError(
                f"its worker was lost: {' '.join(str(error).split())}"
            ) from error
        return row

    def dismiss(self, *, busy: bool) -> None:
        if busy:
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.kill(self._actor)

    def join(self) -> None:
        """Ray sees to it."""


def _check_room(nodes: Sequence[Mapping[str, Any]], cpus: float, gpus: float) -> None:
    """Refuse a worker that no node has room for: Ray would wait for one without end."""
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    if any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in alive):
        return
    largest = [
        f"{max((node.get(name, 0) for node in alive), default=0):g} {name}s"
        for name in ("CPU", "GPU")
    ]
    raise SelectionError(
        f"`engine` ray: no node has room for a worker of `cpus` {cpus:g} `gpus` {gpus:g}; the "
        f"largest have {' and '.join(largest)}"
    )


def _connect(ray: Any, address: str | None) -> None:
    where = f"`address` {address}" if address else "`engine` ray"
    try:
        _check_reachable(address)
        ray.init(
            address=address, include_dashboard=False if address is None else None,
            configure_logging=False, log_to_driver=False,
        )  # fmt: skip
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SelectionError(f"{where}: no Ray cluster answers there ({reason})") from error


def _check_reachable(address: str | None) -> None:
    """Raise ``OSError`` if nothing listens at a host and port; Ray itself takes minutes to say."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), _GRACE).close()
