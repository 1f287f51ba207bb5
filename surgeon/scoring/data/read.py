"""What ``--data`` names → texts or a table."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from surgeon.errors import EvaluationError
from surgeon.scoring.data.columns import Columns, locate
from surgeon.scoring.data.files import read_table
from surgeon.scoring.data.hub import PREFIX, read_hub
from surgeon.scoring.data.table import Table
from surgeon.text import Texts, read_texts

# The files whose lines are no texts, so that a column must be meant.
_NEVER_LINES = (".jsonl", ".json", ".parquet")


def read_data(source: str, needs: Literal["texts", "table"], columns: Columns) -> Texts | Table:
    """Read a file, or a data set of the Hub (``hf:org/name``).

    Texts are the lines of a file, or the text column of a table: of a data set of the Hub, of a
    JSON, JSON Lines or Parquet file, and of any file where the column is named.

    Raises:
        EvaluationError: it is not there, or not what is needed.
    """
    hub, path = source.startswith(PREFIX), Path(source)
    of_lines = not hub and columns.text is None and path.suffix.lower() not in _NEVER_LINES
    if needs == "texts" and of_lines:
        return read_texts(path)
    table = read_hub(source) if hub else read_table(path)
    return table if needs == "table" else _texts(table, columns)


def _texts(table: Table, columns: Columns) -> Texts:
    located = locate(table, columns, pair=False, label=False)
    values = (str(value or "").strip() for value in located.table.values(located.text))
    lines = tuple(" ".join(value.split("\n")) for value in values if value)
    if not lines:
        raise EvaluationError(f"--data {table.name}: the column {located.text} holds no text")
    return Texts(table.name, lines, table.raw)
