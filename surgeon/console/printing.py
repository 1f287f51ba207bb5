"""Where output goes, and how numbers and names look in it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from json import dumps
from typing import Any

from rich.console import Console

SHOWN = 12
"""Numbers of a list that a table shows."""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # rich would exit with 1, which says that a check was not met


def out() -> Console:
    """Return standard output."""
    return _Console(highlight=False, soft_wrap=False)


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document to standard output."""
    # Made whole before any of it is written.
    sys.stdout.write(dumps(document, indent=1, allow_nan=False) + "\n")


def numbers(values: Sequence[int], limit: int | None = SHOWN) -> str:
    """Return numbers as a list for people, cut after ``limit``."""
    shown = ", ".join(map(str, values[:limit]))
    return f"{shown}, … ({len(values)})" if limit and len(values) > limit else shown


def escape(text: str) -> str:
    """Return text whose brackets are no markup, and that holds no code for the terminal."""
    from rich.markup import escape as escaped

    return escaped("".join(c if c.isprintable() or c == "\n" else "�" for c in text))


def err() -> Console:
    """Return standard error."""
    return Console(stderr=True, highlight=False)


def print_error(message: str) -> None:
    """Print one line to standard error; a message never spans more."""
    shown = "".join(c if c.isprintable() else " " for c in message)
    sys.stderr.write(f"surgeon: {' '.join(shown.split())}\n")


def print_note(message: str) -> None:
    """Print something worth knowing to standard error."""
    err().print(f"[dim]{escape(message)}[/dim]", soft_wrap=True)


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
    out().print(f"\n[bold]{escape(message)}[/bold]", soft_wrap=True)


def print_text(message: str) -> None:
    """Print plain text to standard output."""
    out().print(escape(message), soft_wrap=True)
