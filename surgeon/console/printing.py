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

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from surgeon.harmless import listed, plain, shortened
from surgeon.progress import Progress, duration

SHOWN = 12
"""Numbers of a list that a table shows."""

_NARROWEST = 20  # characters of a line; where COLUMNS is 0, rich would print nothing
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


def _made(stream: TextIO) -> Console:
    console = _Console(file=stream, highlight=False, markup=False, emoji=False)
    console.width = max(console.width, _NARROWEST)
    return console


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document to standard output."""
    # Made whole before any of it is written.
    sys.stdout.write(dumps(document, indent=1, allow_nan=False) + "\n")


def numbers(values: Sequence[int], limit: int | None = SHOWN) -> str:
    """Return numbers as a list for people, cut after ``limit``."""
    count = f" ({len(values)})" if limit and len(values) > limit else ""
    return f"{listed(values, limit)}{count}"


def in_layers(layers: Sequence[int] | None) -> str:
    """Return layers as words (None: all)."""
    return "all layers" if layers is None else f"layer{'s' * (len(layers) > 1)} {numbers(layers)}"


def print_table(
    heads: Sequence[str],
    rows: Iterable[Sequence[str | Text]],
    *,
    title: str | None = None,
    caption: str | None = None,
    lines: bool = False,
) -> None:
    """Print a table to standard output, wrapped between words wherever they have room.

    Args:
        heads: of the columns; ">" before one sets it to the right, as numbers are.
        rows: a cell for each column.
        title: above the table.
        caption: below it.
        lines: between the rows.
    """
    console, cells = out(), [list(row) for row in rows]
    table = Table(title=title, caption=caption, show_lines=lines)
    names = [head.lstrip(">") for head in heads]
    columns = [[str(cell) for cell in column] for column in zip(names, *cells, strict=True)]
    room = console.width - 3 * len(names) - 1  # without the lines between columns
    for head, name, width in zip(heads, names, _widths(columns, room), strict=True):
        justify: Literal["left", "right"] = "right" if head.startswith(">") else "left"
        table.add_column(name, justify=justify, overflow="fold", width=width)
    for row in cells:
        table.add_row(*row)
    console.print(table)


def _widths(columns: Sequence[Sequence[str]], room: int) -> list[int | None]:
    """Return how wide columns are that keep words whole; those that want least get all they want.

    Where everything has room, or the longest words have none, rich knows better (None).
    """
    longest = [max(map(cell_len, column)) for column in columns]
    least = [
        max(cell_len(word) for cell in column for word in cell.split(" ")) for column in columns
    ]
    spare = room - sum(least)
    if sum(longest) <= room or spare < 0:
        return [None] * len(columns)
    widths: list[int | None] = [*least]
    wanted = [whole - word for whole, word in zip(longest, least, strict=True)]
    order = sorted(range(len(columns)), key=wanted.__getitem__)
    for done, place in enumerate(order):
        more = min(wanted[place], spare // (len(order) - done))
        widths[place], spare = least[place] + more, spare - more
    return widths


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
    _print_wrapped(_made(sys.stderr), as_options(message), "dim")


class _Notes(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        print_note(record.getMessage())


def show_log() -> None:
    """Print what the library warns of, such as a file that it has moved aside, as a note."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # else of a home it cannot write to
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
    text = console.render_str(message) if isinstance(message, str) else message
    # A path or a name that is longer than a line stays whole, so that it can be copied.
    breaks = _breaks(text.plain, console.width) if console.is_terminal else ()
    for line in text.divide(breaks):
        line.rstrip()
        console.print(line, style=style, soft_wrap=True)


def _breaks(text: str, width: int) -> Iterator[int]:
    """Yield where lines of so many characters begin, after the first."""
    start = end = 0
    for gap in re.finditer(" +|$", text):
        if gap.start() - start > width and end > start:
            yield end
            start = end
        end = gap.end()


def print_line(message: str) -> None:
    """Print a line that nothing breaks, such as a command to copy."""
    out().print(message, soft_wrap=True)


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
