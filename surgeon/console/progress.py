"""How far a long step is: bars on a terminal, elsewhere a plain line now and then."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TextIO

from rich.console import Console

from surgeon.harmless import plain
from surgeon.progress import Progress

_EVERY = 30  # seconds: what takes less says nothing to a log


@contextlib.contextmanager
def shown_progress(clock: Callable[[], float] = time.monotonic) -> Iterator[Progress]:
    """Show long-running steps on standard error: on a terminal as bars.

    Elsewhere, such as in the log of a job, there is a line every 30 seconds, and one at the end if
    there was any: whoever reads it can tell work from a hang.
    """
    # Bound to standard error as it is now, which a noisy library may be kept from for a while.
    console = Console(file=sys.stderr, highlight=False)
    shown = _bars(console) if console.is_terminal else _lines(sys.stderr, clock)
    with shown as progress:
        yield progress


@contextlib.contextmanager
def _bars(console: Console) -> Iterator[Progress]:
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        task = bars.add_task("starting", total=None)

        def report(step: str, done: int, total: int) -> None:
            bars.update(task, description=plain(step), completed=done, total=total or None)

        yield report


@contextlib.contextmanager
def _lines(stream: TextIO, clock: Callable[[], float]) -> Iterator[Progress]:
    told_at, printed, latest = clock(), "", ""

    def report(step: str, done: int, total: int) -> None:
        nonlocal told_at, printed, latest
        # Steps of a study say themselves how many of how many.
        latest = f"{step}: {done:,} of {total:,}" if total and " of " not in step else step
        if clock() - told_at >= _EVERY:
            told_at, printed = clock(), latest
            _print(latest, stream)

    yield report
    if printed and latest != printed:
        _print(latest, stream)


def _print(line: str, stream: TextIO) -> None:
    stream.write(f"{' '.join(plain(line).split())}\n")
    stream.flush()
