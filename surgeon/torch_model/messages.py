"""What other libraries say: chatter stays off the screen, an error becomes one line."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import transformers

from surgeon.errors import ExportError

_COLOURS = re.compile("\x1b\\[[0-9;]*m")


def explained(
    what: str, error: Exception, otherwise: str, places: Mapping[Path, Path] | None = None
) -> ExportError:
    """Make one line of what another library raised.

    Args:
        what: what failed.
        error: what was raised.
        otherwise: what the user is to do instead.
        places: folders that the reader does not know, and what they stand for.
    """
    cause = error.__cause__ or error
    text = _COLOURS.sub("", str(cause) if str(cause).strip() else str(error))
    for folder, known in (places or {}).items():
        text = text.replace(str(folder), str(known))
    reason = next((line.strip() for line in text.splitlines() if line.strip()), "no reason given")
    return ExportError(f"{what} ({type(cause).__name__}: {reason}); {otherwise}")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the chatter of other libraries off the screen, and standard input out of their reach.

    Errors still rise. What asks a question finds no answer: it must not take one that was meant
    for somebody else.
    """
    verbosity = transformers.logging.get_verbosity()
    bars = transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    standard_input, sys.stdin = sys.stdin, io.StringIO()
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.stdin = standard_input
        logging.disable(previous)
        transformers.logging.set_verbosity(verbosity)
        if bars:
            transformers.logging.enable_progress_bar()
