"""The table of an atlas: a row per model and dimension, written from the rows one at a time."""

from __future__ import annotations

import importlib.util
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from surgeon.edit.staging import staged_file
from surgeon.errors import OutputError
from surgeon.study.atlas_rows import Note, Target, rows_path
from surgeon.study.jobs import DONE, FAILED, Row

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


_OWN = (  # what differs between errors of a kind → what stands for it
    (r"^[\w.-]+\.(json|safetensors): ", ""),
    (r"^no such file or directory here, and ", ""),
    (r";.*", ""),
    (r" \([^)]*\)", ""),
    (r"https?://[^\s,]+", "the Hub"),
    (r"'[^']*'", "'…'"),
    (r"(?<![\w./:-])\d+", "N"),
)


@dataclass(frozen=True)
class Atlas:
    """An atlas that has been built: its table, and how many of its models did what.

    ``kept`` were scanned by an earlier run, ``with_outliers`` have a dimension that meets the
    criterion. ``reasons`` are those of the failures with their number, the most frequent first.
    ``bytes_read`` are those of the models' files, and ``seconds`` the time, of this run.
    """

    output: Path
    models: int
    done: int
    failed: int
    kept: int
    with_outliers: int
    reasons: tuple[tuple[str, int], ...]
    bytes_read: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the document that ``atlas --json`` prints."""
        reasons = [{"reason": reason, "models": models} for reason, models in self.reasons]
        paths = {"output": str(self.output), "rows": str(rows_path(self.output))}
        return {**vars(self), **paths, "reasons": reasons}


@dataclass(frozen=True)
class Outlook:
    """What there is to do for an atlas: ``left`` of its models, which take ``seconds`` at least."""

    models: int
    done: int
    failed: int
    left: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the document that ``atlas --dry-run --json`` prints."""
        return vars(self)


def sum_up(
    output: Path,
    targets: Sequence[Target],
    notes: Mapping[str, Note],
    kept: int,
    bytes_read: int,
    seconds: float,
) -> Atlas:
    """Return what became of the targets, each of which has a note."""
    found = {target: notes[target.key] for target in targets}
    reasons = Counter(
        reason_of(note.error, target.model) for target, note in found.items() if note.error
    )
    failed = sum(note.status == FAILED for note in found.values())
    return Atlas(
        output=output,
        models=len(targets),
        done=len(targets) - failed,
        failed=failed,
        kept=kept,
        with_outliers=sum(note.outliers > 0 for note in found.values()),
        reasons=tuple(reasons.most_common()),
        bytes_read=bytes_read,
        seconds=seconds,
    )


def count(
    targets: Iterable[Target],
    notes: Mapping[str, Note],
    status: str,
    *,
    besides: Iterable[Target] = (),
) -> int:
    """Return how many targets, besides some, have a row of a status."""
    keys = {target.key for target in targets} - {target.key for target in besides}
    return sum(key in notes and notes[key].status == status for key in keys)


def reason_of(error: str, model: str) -> str:
    """Return an error without what is the model's own, so that equal ones can be counted."""
    text = re.sub(rf"^{re.escape(model)}[^\s:]*: ", "", error).replace(model, "MODEL")
    for pattern, plain in _OWN:
        text = re.sub(pattern, plain, text)
    return text
