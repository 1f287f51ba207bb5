"""What runs the work of a study, by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TypeAlias

from surgeon.errors import SelectionError
from surgeon.study.local import run_local
from surgeon.study.work import Row, Setup, Supply

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
    from surgeon.study.cluster import run_ray

    return lambda supply, setup: run_ray(supply, setup, workers, address, cpus, gpus)


def duration(seconds: float) -> str:
    """Return a time in words, as exact as an estimate is."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
