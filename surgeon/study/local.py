"""The engine for one machine: worker processes, each with its share of the cores.

A process per worker, not a pool: if one is killed, by the system for its memory or by a crash in
native code, the piece of work that it had is known, and the others go on.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from surgeon.study.work import Item, Row, Setup, Supply, failed_row

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
