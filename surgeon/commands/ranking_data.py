"""``--data`` of the commands that rank: texts, from the same files that ``eval`` reads."""

from __future__ import annotations

from surgeon.errors import SelectionError
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
