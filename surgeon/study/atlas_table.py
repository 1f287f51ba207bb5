"""The table of an atlas: a row per model and dimension, written from the rows one at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from surgeon.study.jobs import DONE, Row
from surgeon.study.table import has_columns, open_table

_GROUP = 2**18  # rows that are in memory at once


def write_atlas(output: Path, rows: Iterable[Row]) -> None:
    """Write the rows of models as Parquet, which appears whole or not at all."""
    import pyarrow as pa

    schema = _schema(pa)
    with open_table(output, schema, lambda path: has_columns(path, schema.names)) as writer:
        for batches in _groups(_batch(pa, schema, row) for row in rows):
            writer.write_table(pa.Table.from_batches(batches))


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


def _batch(pa: Any, schema: Any, row: Row) -> Any:
    """Return a model's rows: one per dimension, or one that says why there are none."""
    dims = _by_dim(row) if row["status"] == DONE else {}
    size = len(dims["dim"]) if dims else 1
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
