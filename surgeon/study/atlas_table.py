"""The table of an atlas: a row per model and dimension, written from the rows one at a time."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from surgeon.errors import OutputError
from surgeon.study.work import DONE, Row
from surgeon.surgery.staging import staged_file

_SUFFIX = ".parquet"
_GROUP = 2**18  # rows that are in memory at once


def check_table(output: Path) -> None:
    """Refuse a table that could not be written in the end.

    Raises:
        OutputError: pyarrow is not installed, or the file is to be something else than Parquet.
    """
    check_suffix(output)
    if importlib.util.find_spec("pyarrow") is None:
        raise OutputError(
            f"-o {output}: pyarrow, which writes it, is not installed; run: "
            "pip install 'norm-surgeon[study]'"
        )


def check_suffix(output: Path) -> None:
    """Refuse a table that would not be what its name says.

    Raises:
        OutputError: the suffix is another one than that of Parquet.
    """
    if output.suffix.lower() != _SUFFIX:
        found = f"the suffix {output.suffix}" if output.suffix else "no suffix"
        raise OutputError(f"-o {output}: has {found}; an atlas is Parquet: give FILE{_SUFFIX}")


def write_table(output: Path, file: BinaryIO, starts: Iterable[int]) -> None:
    """Write the rows that start at ``starts`` in ``file`` as Parquet, seen whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(pa)
    with (
        staged_file(output, lambda path: has_columns(path, schema.names)) as staging,
        pq.ParquetWriter(staging, schema, compression="zstd") as writer,
    ):
        for batches in _groups(_batch(pa, row) for row in _rows(file, starts)):
            writer.write_table(pa.Table.from_batches(batches))


def has_columns(path: Path, names: Sequence[str]) -> bool:
    """Whether a file is a Parquet table of these columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return list(pq.read_schema(path).names) == list(names)
    except (OSError, pa.ArrowException):
        return False


def _rows(file: BinaryIO, starts: Iterable[int]) -> Iterator[Row]:
    for start in starts:
        file.seek(start)
        row: Row = json.loads(file.readline())
        yield row


def _groups(batches: Iterable[Any]) -> Iterator[list[Any]]:
    group: list[Any] = []
    size = 0
    for batch in batches:
        group.append(batch)
        size += batch.num_rows
        if size >= _GROUP:
            yield group
            group, size = [], 0
    if group:
        yield group


def _schema(pa: Any) -> Any:
    z = pa.float32()
    return pa.schema(
        {
            "model": pa.string(),
            "asked": pa.string(),
            "revision": pa.string(),
            "architecture": pa.string(),
            "layers": pa.int32(),
            "hidden_size": pa.int32(),
            "dim": pa.int32(),
            "score": pa.float64(),
            "strength": z,
            "gain_z": z,
            "bias_z": z,
            "max_gain_z": z,
            "outlier": pa.bool_(),
            "status": pa.string(),
            "error": pa.string(),
            "bytes_read": pa.int64(),
            "seconds": pa.float64(),
        }
    )


def _batch(pa: Any, row: Row) -> Any:
    """Return a model's rows: one per dimension, or one that says why there are none."""
    dims = _by_dim(row) if row["status"] == DONE else {}
    size = len(dims["dim"]) if dims else 1
    schema = _schema(pa)
    columns = [
        pa.array(dims[field.name], field.type)
        if dims.get(field.name) is not None
        else pa.repeat(pa.scalar(row.get(field.name), field.type), size)
        for field in schema
    ]
    return pa.record_batch(columns, schema=schema)


def _by_dim(row: Row) -> dict[str, Any]:
    dims = np.arange(row["hidden_size"])
    return {
        "dim": dims,
        "score": np.array(row["flagged"]) / row["layers"],
        "outlier": np.isin(dims, row["outliers"]),
        **{name: row[name] for name in ("strength", "gain_z", "bias_z", "max_gain_z")},
    }
