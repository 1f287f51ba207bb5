"""A ranking as a table in a file: a row for each dimension, strongest first."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surgeon.edit.files import check_new_file
from surgeon.edit.staging import replace_file

if TYPE_CHECKING:
    from surgeon.ranking import Ranking, ZScores

_CSV = ".csv"
_COLUMNS = (
    "dim", "outlier", "score", "strength", "layers", "damage", "low", "high", "texts", "added",
)  # fmt: skip


def check_ranking_table(path: Path, *, force: bool) -> None:
    """Refuse a table that could not be written, before anything is computed for it.

    Raises:
        OutputError: as ``check_table`` and ``check_new_file``.
    """
    from surgeon.study.run import PARQUET, check_table

    check_table(path, (_CSV, PARQUET), f"give {_CSV} or {PARQUET}")
    check_new_file(path, force=force)


def write_ranking_table(
    ranking: Ranking, zscores: ZScores, path: Path, *, force: bool = False
) -> None:
    """Write a ranking with the z-scores of each layer, as CSV or Parquet by the suffix.

    ``layers`` is how many flag the dimension, ``low`` to ``high`` the interval of its damage; what
    is not known is empty. ``gain_z_0`` is the z-score in the first of the layers.

    Raises:
        OutputError: the file exists and ``force`` is off.
    """
    columns = _columns(ranking, zscores)
    ours = partial(_is_table, names=tuple(columns)) if force else None
    if path.suffix.lower() == _CSV:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
        replace_file(path, text.getvalue().encode(), ours)
        return
    import pyarrow as pa

    from surgeon.study.run import open_table

    table = pa.table(columns)
    with open_table(path, table.schema, ours) as writer:
        writer.write_table(table)


def _columns(ranking: Ranking, zscores: ZScores) -> dict[str, list[Any]]:
    outliers = set(ranking.outliers)
    rows = [
        (
            d.dim,
            d.dim in outliers,
            d.score,
            d.strength,
            len(d.layers),
            d.damage,
            *(d.interval or (None, None)),
            d.examples,
            d.added,
        )
        for d in ranking.dimensions
    ]
    named = zip(_COLUMNS, map(list, zip(*rows, strict=True)), strict=True)
    order = [dimension.dim for dimension in ranking.dimensions]
    return dict(named) | {
        f"{name}_{number}": vector[order].tolist() for name, number, vector in _vectors(zscores)
    }


def _vectors(zscores: ZScores) -> Iterator[tuple[str, int, Any]]:
    for name, values in (("gain_z", zscores.gain), ("bias_z", zscores.bias)):
        for number, vector in enumerate(() if values is None else values):
            yield name, number, vector


def _is_table(path: Path, names: tuple[str, ...]) -> bool:
    """Whether a file is an earlier table of these columns."""
    from surgeon.study.run import has_columns

    if path.suffix.lower() != _CSV:
        return has_columns(path, names)
    with path.open("rb") as file:
        return file.readline().strip() == ",".join(names).encode()
