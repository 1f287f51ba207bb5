"""The engine for a cluster: workers are Ray actors, with the CPUs and GPUs they declare.

Models and data must be found under the same names on every node: on a file system that they share,
or on the Hub. Rows come back to the process that asked, which alone writes them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from surgeon.errors import SelectionError
from surgeon.study.work import Item, Row, Setup, Supply, failed_row

_PATIENCE = 10  # seconds


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
