"""What the commands that rank share: the texts of ``--data``, and the command that settles it."""

from __future__ import annotations

import shlex

from surgeon.errors import SelectionError
from surgeon.outliers import MEASURED
from surgeon.text import Texts


def ranking_texts(data: str | None, text_column: str | None) -> Texts | None:
    """Read the texts that rank; None for the built-in ones.

    Raises:
        SelectionError: a column is named, and no data to find it in.
        EvaluationError: the data cannot be read, or have no column for the text.
    """
    if data is None:
        if text_column is not None:
            raise SelectionError(f"--text-column {text_column}: is a column of --data; give both")
        return None
    from surgeon.scoring.data import Columns, read_texts_of

    return read_texts_of(data, Columns(text_column))


def settling(
    command: str, model: str, revision: str | None, sites_pattern: str | None, *more: str
) -> str:
    """Return the command line that measures, of the same model, as it would be typed."""
    named = {"--revision": revision, "--sites-pattern": sites_pattern}
    options = [f"{name} {shlex.quote(value)}" for name, value in named.items() if value is not None]
    return " ".join(
        ["surgeon", command, shlex.quote(model), *options, *more, f"--method {MEASURED}"]
    )
