"""Where output goes, and how numbers and names look in it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from json import dumps
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from surgeon.harmless import plain, shortened

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


def print_error(message: str) -> None:
    """Print one line to standard error; a message never spans more."""
    sys.stderr.write(f"surgeon: {shortened(message, _LONGEST)}\n")


def print_note(message: str) -> None:
    """Print something worth knowing to standard error."""
    err().print(message, style="dim", soft_wrap=True)


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
    out().print()
    out().print(message, style="bold", soft_wrap=True)


def print_text(message: str, style: str = "") -> None:
    """Print a line of plain text to standard output."""
    out().print(message, style=style, soft_wrap=True)
