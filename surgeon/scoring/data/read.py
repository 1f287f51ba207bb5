"""What ``--data`` names → texts or a table."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from surgeon.errors import EvaluationError
from surgeon.scoring.data.columns import Columns, locate
from surgeon.scoring.data.files import FORMATS, read_table
from surgeon.scoring.data.hub import PREFIX, read_hub
from surgeon.scoring.data.table import Table
from surgeon.text import Texts, nonblank, read_texts

# The files that are tables, so that a column must be meant and not a line.
_TABLES = tuple(FORMATS)


def read_data(
    source: str, needs: Literal["texts", "table"], columns: Columns, *, document: bool = False
) -> Texts | Table:
    """Read a file, or a data set of the Hub (``hf:org/name``), as texts or as a table.

    With ``document``, a text file is one text.

    Raises:
        EvaluationError: it is not there, or not what is needed.
    """
    return (
        _read_table(source)
        if needs == "table"
        else read_texts_of(source, columns, document=document)
    )


def read_texts_of(source: str, columns: Columns, *, document: bool = False) -> Texts:
    """Read texts: the lines of a file, or the text column of a table.

    Tables are the data sets of the Hub, the files that end as ``files.FORMATS`` say, and any file
    where the column is named. A CSV or TSV file of one column needs no header.

    Raises:
        EvaluationError: it is not there, or holds no text, or no column for it.
    """
    hub, path = source.startswith(PREFIX), Path(source)
    if not hub and columns.text is None and path.suffix.lower() not in _TABLES:
        return read_texts(path, document=document)
    if document:
        raise EvaluationError(
            f"--document: --data {source} is a table, each of whose rows is a text; leave it out"
        )
    return _texts(_read_table(source), columns)


def _read_table(source: str) -> Table:
    return read_hub(source) if source.startswith(PREFIX) else read_table(Path(source))


def _texts(table: Table, columns: Columns) -> Texts:
    located = locate(table, columns, pair=False, label=False)
    values = located.table.values(located.text)
    lines = nonblank(str(value) for value in values if value is not None)
    if not lines:
        raise EvaluationError(f"--data {table.name}: the column {located.text} holds no text")
    return Texts(table.name, lines, table.raw)
