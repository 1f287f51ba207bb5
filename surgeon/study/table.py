"""Parquet files of results, which appear whole or not at all."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from surgeon.edit.staging import staged_file
from surgeon.errors import OutputError

PARQUET = ".parquet"


def check_suffix(output: Path, known: Sequence[str], advice: str) -> None:
    """Refuse a file that would not be what its name says.

    Raises:
        OutputError: the suffix is not one of the known ones.
    """
    if output.suffix.lower() not in known:
        found = f"the suffix {output.suffix}" if output.suffix else "no suffix"
        raise OutputError(f"`output` {output}: has {found}; {advice}")


def check_pyarrow(output: Path) -> None:
    """Refuse a table that could not be written in the end.

    Raises:
        OutputError: pyarrow is not installed.
    """
    if not has_pyarrow():
        raise OutputError(
            f"`output` {output}: Parquet needs pyarrow; run: pip install 'norm-surgeon[study]'"
        )


def has_pyarrow() -> bool:
    """Tell whether Parquet can be written."""
    return importlib.util.find_spec("pyarrow") is not None


@contextlib.contextmanager
def open_table(path: Path, schema: Any, ours: Callable[[Path], bool] | None) -> Iterator[Any]:
    """Yield a ``ParquetWriter`` of a file that appears at the end; ``ours`` as ``staged_file``."""
    import pyarrow.parquet as pq

    with (
        staged_file(path, ours) as staging,
        pq.ParquetWriter(staging, schema, compression="zstd") as writer,
    ):
        yield writer


def has_columns(path: Path, names: Sequence[str]) -> bool:
    """Tell whether a file is a Parquet table of these columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return list(pq.read_schema(path).names) == list(names)
    except (OSError, pa.ArrowException):
        return False
