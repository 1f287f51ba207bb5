"""What runs the work of a study, by name."""

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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeAlias

from surgeon.errors import SelectionError
from surgeon.study.cells import Cell
from surgeon.study.grid import Model
from surgeon.study.jobs import (
    Item,
    Row,
    Setup,
    Supply,
    failed_row,
)

Engine: TypeAlias = Callable[[Supply, Setup], Iterator[Row]]
"""Yields a row for each piece of work, in any order, as it is done."""


def choose_engine(
    name: str, workers: int, address: str | None = None, cpus: float = 1, gpus: float = 0
) -> Engine:
    """Return an engine by name, with its settings.

    Raises:
        SelectionError: there is no such engine, or it does not take them.
    """
    if workers < 1:
        raise SelectionError(f"--workers {workers}: give a number of 1 or more")
    for option, count in (("--cpus", cpus), ("--gpus", gpus)):
        if not 0 <= count < math.inf:
            raise SelectionError(f"{option} {count:g}: give a number of 0 or more")
        if count > 1 and count % 1:
            raise SelectionError(f"{option} {count:g}: above 1, Ray takes whole numbers alone")
    if name == "local":
        told = {"--address": address is not None, "--cpus": cpus != 1, "--gpus": gpus != 0}
        for option in (option for option, given in told.items() if given):
            raise SelectionError(f"{option}: is for --engine ray; give that too, or leave it out")
        return lambda supply, setup: run_local(supply, setup, workers)

    return lambda supply, setup: run_ray(supply, setup, workers, address, cpus, gpus)


def duration(seconds: float) -> str:
    """Return a time in words, as exact as an estimate is."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def run_ray(
    supply: Supply,
    setup: Setup,
    workers: int,
    address: str | None,
    cpus: float,
    gpus: float,
) -> Iterator[Row]:
    """Yield a row for each piece as it is done, in any order, from ``workers`` actors.

    Args:
        supply: what to do.
        setup: what the workers share; a folder in it is made on each node.
        workers: how many actors at most; the scheduler starts as many as there is room for.
        address: of a cluster that runs ("auto" finds one); None starts one on this machine.
        cpus: what each actor declares, as Ray counts them.
        gpus: the same.

    Raises:
        SelectionError: Ray is not installed, no cluster answers at the address, or none of its
            nodes has what an actor declares.
    """
    if importlib.util.find_spec("ray") is None:
        raise SelectionError("--engine ray: Ray is not installed; run: pip install ray")
    import ray

    begun = not ray.is_initialized()
    if begun:
        _connect(ray, address)
    running: dict[Any, tuple[Any, Item]] = {}

    def give(worker: Any, item: Item | None) -> None:
        if item is not None:
            running[worker.row.remote(item)] = worker, item

    try:
        _check_room(ray.nodes(), cpus, gpus)
        actor = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0)(_Actor)
        for _ in range(min(workers, len(supply))):
            give(actor.remote(setup), supply.take(None))
        while running:
            (ready, *_), _ = ray.wait(list(running), num_returns=1)
            worker, item = running.pop(ready)
            try:
                row: Row = ray.get(ready)
            except ray.exceptions.RayError as error:  # the actor's process or node has died
                row = failed_row(item, f"its worker was lost: {' '.join(str(error).split())}")
                worker = actor.remote(setup) if supply else None
            yield row
            give(worker, supply.take(item))
    finally:
        for worker, _ in running.values():
            with contextlib.suppress(ray.exceptions.RayError):
                ray.kill(worker)
        if begun:
            ray.shutdown()


class _Actor:
    """A worker in a process of Ray's."""

    def __init__(self, setup: Setup) -> None:
        self._worker = setup.worker()

    def row(self, item: Any) -> Row:
        """Do a piece of work."""
        return self._worker.row(item)


def _check_room(nodes: Sequence[Mapping[str, Any]], cpus: float, gpus: float) -> None:
    """Refuse a worker that no node has room for: Ray would wait for one without end."""
    there = [node["Resources"] for node in nodes if node["Alive"]]
    if any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in there):
        return
    largest = [f"{max(node.get(name, 0) for node in there):g} {name}s" for name in ("CPU", "GPU")]
    raise SelectionError(
        f"--engine ray: no node has room for a worker of --cpus {cpus:g} --gpus {gpus:g}; the "
        f"largest have {' and '.join(largest)}"
    )


def _connect(ray: Any, address: str | None) -> None:
    where = f"--address {address}" if address else "--engine ray"
    try:
        _knock(address)
        ray.init(
            address=address, include_dashboard=False if address is None else None,
            configure_logging=False, log_to_driver=False,
        )  # fmt: skip
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SelectionError(f"{where}: no Ray cluster answers there ({reason})") from error


def _knock(address: str | None) -> None:
    """Raise ``OSError`` if nothing listens at a host and port; Ray itself takes minutes to say."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), _PATIENCE).close()


_PATIENCE = 10  # seconds for libraries to clean up


def run_local(supply: Supply, setup: Setup, workers: int) -> Iterator[Row]:
    """Yield a row for each piece as it is done, in any order, from ``workers`` processes."""
    processes: list[_Process] = []
    try:
        processes.extend(_start(n, workers, setup) for n in range(min(workers, len(supply))))
        processes = [process.give(supply) for process in processes]
        while busy := [process for process in processes if process.item is not None]:
            ready = wait([process.pipe for process in busy])
            for number, process in enumerate(processes):
                if process.item is None or process.pipe not in ready:
                    continue
                row, successor = process.receive(), process
                if row is None:
                    row = failed_row(process.item, process.end())
                    successor = _start(number, workers, setup) if supply else process
                processes[number] = successor.give(supply)  # busy while the row is kept
                yield row
    finally:
        for process in processes:
            process.dismiss()
        for process in processes:
            process.stop()


@dataclass(frozen=True)
class _Process:
    """A worker's process, the pipe to it, and the piece of work that it has."""

    process: BaseProcess
    pipe: Connection
    item: Item | None = None

    def give(self, supply: Supply) -> _Process:
        """Send the next piece, if there is one."""
        item = supply.take(self.item)
        if item is not None:
            # A process that has died meanwhile is found by what it does not answer.
            with contextlib.suppress(OSError):
                self.pipe.send(item)
        return _Process(self.process, self.pipe, item)

    def receive(self) -> Row | None:
        """Return the row of the piece; None if the process has died."""
        try:
            row: Row = self.pipe.recv()
        except (EOFError, OSError):
            return None
        return row

    def end(self) -> str:
        """Say how the process ended."""
        self.process.join()
        code = self.process.exitcode or 0
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"its process ended with {how}; SIGKILL is most often a lack of memory"

    def dismiss(self) -> None:
        """Tell it to end: at once if it has work, which nobody waits for any more."""
        self.pipe.close()
        if self.item is not None:
            self.process.terminate()

    def stop(self) -> None:
        """Wait until it has ended, or end it."""
        self.process.join(_PATIENCE)
        self.process.kill()  # where native code kept it from hearing of it
        self.process.join()


def _start(number: int, workers: int, setup: Setup) -> _Process:
    # Not forked: onnxruntime and torch do not survive a fork once their threads run.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, setup, number, workers), daemon=True)
    with _deaf_to_interrupts():
        process.start()
    theirs.close()
    return _Process(process, ours)


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Ignore Ctrl-C, which is inherited: a process that starts up would show a traceback."""
    if threading.current_thread() is not threading.main_thread():
        yield  # no other may set what a signal does
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _work(pipe: Connection, setup: Setup, number: int, workers: int) -> None:
    """Do what comes through the pipe, until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told, and stops the workers
    # An orderly end: half-made exports go, and so do the semaphores of libraries. Where a library
    # holds the exit up, it is killed, and the next run removes what that leaves.
    for ending in {signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}:
        signal.signal(ending, lambda number, frame: sys.exit(128 + number))  # noqa: ARG005
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    _take_share_of_cores(number, workers)
    worker = setup.worker()
    with contextlib.suppress(EOFError, OSError):  # the parent is gone: so is the run
        while True:
            pipe.send(worker.row(pipe.recv()))


def _end_with_the_parent() -> None:
    """End this process when its parent is gone: it may have hours of work that nobody waits for."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_PATIENCE)
    os._exit(1)  # native code kept it from hearing of it


def _take_share_of_cores(number: int, workers: int) -> None:
    """Keep this process to its share, which the sizes of thread pools follow."""
    if not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[number % len(cores) :: workers] or cores[:1])


class Waiting:
    """The cells that no worker has yet, by model."""

    def __init__(self, cells: Iterable[Cell]) -> None:
        self._by_model: dict[Model, deque[Cell]] = {}
        self._taken: Counter[Model] = Counter()
        for cell in cells:
            self._by_model.setdefault(cell.model, deque()).append(cell)

    def __len__(self) -> int:
        return sum(map(len, self._by_model.values()))

    def take(self, after: Cell | None) -> Cell | None:
        """Return a cell of the same model, or of the one that fewest workers have taken up."""
        if not self._by_model:
            return None
        model = after.model if after else None
        if model is None or model not in self._by_model:
            model = min(self._by_model, key=self._taken.__getitem__)
            self._taken[model] += 1
        cells = self._by_model[model]
        cell = cells.popleft()
        if not cells:
            del self._by_model[model]
        return cell
