"""The engine for a cluster: workers are Ray actors, with the CPUs and GPUs they declare.

Models and data must be found under the same names on every node: on a file system that they share,
or on the Hub. Rows come back to the process that asked, which alone writes them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import socket
from collections.abc import Iterator, Sequence
from typing import Any

from surgeon.errors import SelectionError
from surgeon.study.cells import Cell
from surgeon.study.waiting import Waiting
from surgeon.study.worker import Row, Setup, Worker, failed_row

_PATIENCE = 10  # seconds


def run_ray(
    cells: Sequence[Cell],
    setup: Setup,
    workers: int,
    address: str | None,
    cpus: float,
    gpus: float,
) -> Iterator[Row]:
    """Yield a row for each cell as it is done, in any order, from ``workers`` actors.

    Args:
        cells: what to measure.
        setup: what the workers share. Its folder is made on each node.
        workers: how many actors at most; the scheduler starts as many as there is room for.
        address: of a cluster that runs ("auto" finds one); None starts one on this machine.
        cpus: what each actor declares, as Ray counts them.
        gpus: the same.

    Raises:
        SelectionError: Ray is not installed, or no cluster answers at the address.
    """
    if importlib.util.find_spec("ray") is None:
        raise SelectionError("--engine ray: Ray is not installed; run: pip install ray")
    import ray

    begun = not ray.is_initialized()
    if begun:
        _connect(ray, address)
    actor = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0)(Worker)
    waiting = Waiting(cells)
    running: dict[Any, tuple[Any, Cell]] = {}

    def give(worker: Any, cell: Cell | None) -> None:
        if cell is not None:
            running[worker.row.remote(cell)] = worker, cell

    try:
        for _ in range(min(workers, len(cells))):
            give(actor.remote(setup), waiting.take(None))
        while running:
            (ready, *_), _ = ray.wait(list(running), num_returns=1)
            worker, cell = running.pop(ready)
            try:
                row: Row = ray.get(ready)
            except ray.exceptions.RayError as error:  # the actor's process or node has died
                row = failed_row(cell, f"its worker was lost: {' '.join(str(error).split())}")
                worker = actor.remote(setup) if waiting else None
            yield row
            give(worker, waiting.take(cell.model))
    finally:
        for worker, _ in running.values():
            with contextlib.suppress(ray.exceptions.RayError):
                ray.kill(worker)
        if begun:
            ray.shutdown()


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
