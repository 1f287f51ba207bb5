"""Where output goes, and how numbers and names look in it."""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from json import dumps
from typing import Any, Literal, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from surgeon.harmless import plain, shortened
from surgeon.progress import Progress, duration

SHOWN = 12
"""Numbers of a list that a table shows."""

_LONGEST = 4_000  # characters of an error: a name in it may be as long as its file


class _Console(Console):
    """Takes no text for markup, and shows what would be an order to the terminal as a character."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(plain(text), **options)

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # rich would exit with 1, which says that a check was not met


def out() -> Console:
    """Return standard output."""
    return _made(sys.stdout)


def err() -> Console:
    """Return standard error."""
    return _made(sys.stderr)


def _made(stream: TextIO) -> Console:
    return _Console(file=stream, highlight=False, markup=False, emoji=False)


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document to standard output."""
    # Made whole before any of it is written.
    sys.stdout.write(dumps(document, indent=1, allow_nan=False) + "\n")


def numbers(values: Sequence[int], limit: int | None = SHOWN) -> str:
    """Return numbers as a list for people, cut after ``limit``."""
    shown = ", ".join(map(str, values[:limit]))
    return f"{shown}, … ({len(values)})" if limit and len(values) > limit else shown


def print_table(
    heads: Sequence[str],
    rows: Iterable[Sequence[str | Text]],
    *,
    title: str | None = None,
    caption: str | None = None,
    lines: bool = False,
) -> None:
    """Print a table to standard output.

    Args:
        heads: of the columns; ">" before one sets it to the right, as numbers are, and "=" keeps
            each of its cells on a line.
        rows: a cell for each column.
        title: above the table.
        caption: below it.
        lines: between the rows.
    """
    table = Table(title=title, caption=caption, show_lines=lines)
    for head in heads:
        name = head.lstrip(">=")
        justify: Literal["left", "right"] = "right" if head.startswith(">") else "left"
        table.add_column(name, justify=justify, overflow="fold", no_wrap=head.startswith("="))
    for row in rows:
        table.add_row(*row)
    out().print(table)


def as_options(message: str) -> str:
    """Put options in place of the parameters and settings that the library names in a message.

    There `mask_rate` and `onnx=False` are in backticks, for who calls a function; here they are
    --mask-rate and --no-onnx.
    """
    return re.sub(r"(?<!`)`(\w+)(?:\.[\w.]+)?(=True|=False)?`(?!`)", _option, message)


_OTHER_NAMES = {"output": "-o", "texts": "--data", "max_bytes": "--max-mb"}


def _option(named: re.Match[str]) -> str:
    prefix = "--no-" if named[2] == "=False" else "--"
    return _OTHER_NAMES.get(named[1]) or prefix + named[1].replace("_", "-")


def print_error(message: str) -> None:
    """Print one line to standard error; a message never spans more."""
    sys.stderr.write(f"surgeon: {shortened(as_options(message), _LONGEST)}\n")


def print_note(message: str) -> None:
    """Print something worth knowing to standard error."""
    _print_wrapped(err(), as_options(message), "dim")


class _Notes(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        print_note(record.getMessage())


def show_log() -> None:
    """Print what the library warns of, such as a file that it has moved aside, as a note."""
    log = logging.getLogger("surgeon")
    if not any(isinstance(handler, _Notes) for handler in log.handlers):
        log.addHandler(_Notes(logging.WARNING))


def print_heading(message: str) -> None:
    """Print a line that opens a part of a longer output."""
    print_text("")
    print_text(message, style="bold")


def print_text(message: str | Text, style: str = "") -> None:
    """Print plain text to standard output: on a terminal wrapped between words, else one line."""
    _print_wrapped(out(), message, style)


def _print_wrapped(console: Console, message: str | Text, style: str) -> None:
    # A path or a name that is longer than a line stays whole, so that it can be copied.
    wrap = console.is_terminal
    console.print(message, style=style, soft_wrap=not wrap, overflow="ignore", crop=False)


def print_caution(words: str) -> None:
    """Print what a person should know beside a result, as a sentence."""
    print_text(f"{words[:1].upper()}{words[1:]}.", style="yellow")


_EVERY = 30  # seconds: what takes less says nothing to a log
_PACE = 600  # seconds, by which it is estimated how long the rest of a step takes


@contextlib.contextmanager
def shown_progress(clock: Callable[[], float] = time.monotonic) -> Iterator[Progress]:
    """Show long-running steps on standard error, and how long the rest of each takes.

    On a terminal, and in a notebook that has ipywidgets, as a bar. Elsewhere, such as in the log of
    a job, there is a line every 30 seconds, and one at the end if there was any: whoever reads it
    can tell work from a hang.

        with surgeon.shown_progress() as progress:
            surgeon.evaluate("out/", progress=progress)
    """
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars
    from rich.table import Column

    # Bound to standard error as it is now, which a noisy library may be kept from for a while.
    stream = sys.stderr
    console = Console(file=stream, highlight=False)
    room = Column(ratio=1, no_wrap=True, overflow="ellipsis")  # what the others leave
    bars = Bars(
        TextColumn("{task.description}", markup=False, table_column=room),
        BarColumn(10),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
        console=console,
        expand=True,
        get_time=clock,
        speed_estimate_period=_PACE,
        transient=True,
    )
    task = bars.add_task("starting", total=None)
    began = printed_at = clock()
    printed, latest = "", ""

    def report(step: str, done: int, total: int) -> None:
        nonlocal task, printed_at, printed, latest
        latest = plain(f"{step}: {done:,} of {total:,}" if total else step)
        if bars.tasks[0].total != (total or None) or done < bars.tasks[0].completed:
            bars.remove_task(task)  # another step has another pace
            task = bars.add_task(latest, total=total or None, completed=done)
            bars.tasks[0].start_time = began
        bars.update(task, description=latest, completed=done)
        if not bars.live.is_started and clock() - printed_at >= _EVERY:
            rest = bars.tasks[0].time_remaining
            printed_at, printed = clock(), latest
            _print(f"{latest}, about {duration(rest)} left" if rest else latest, stream)

    widgets = console.is_jupyter and find_spec("ipywidgets") is not None
    with bars if console.is_terminal or widgets else contextlib.nullcontext():
        yield report
    if printed and latest != printed:
        _print(latest, stream)


def _print(line: str, stream: TextIO) -> None:
    stream.write(f"{' '.join(line.split())}\n")
    stream.flush()
