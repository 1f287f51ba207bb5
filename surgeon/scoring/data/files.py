"""Tables out of files: CSV, TSV, JSON, JSON Lines and Parquet, by the end of the name."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from surgeon.errors import EvaluationError
from surgeon.scoring.data.table import Table

_MOST_UNPACKED = 2**27  # bytes of a Parquet file's values,
_MOST_PACKING = 20  # or so many times those of the file
_AT_ONCE = 2**29  # bytes of rows that are unpacked together
_MOST_CELL = 10_000_000  # characters; csv's own limit cuts off long contexts


def read_table(path: Path) -> Table:
    """Read a file of rows.

    Raises:
        EvaluationError: there is no such file, its format is none of those known, or it is not in
            that format.
    """
    if path.is_dir():
        raise EvaluationError(f"--data {path}: is a folder; give a file of labelled rows in it")
    if not path.is_file():
        raise EvaluationError(f"--data {path}: no such file; give a file of labelled rows")
    read = FORMATS.get(path.suffix.lower())
    if read is None:
        raise EvaluationError(
            f"--data {path}: rows are read from {', '.join(FORMATS)} files; save it as one of them"
        )
    raw = path.read_bytes()
    try:
        table = read(path.name, raw)
    except MemoryError as error:
        raise EvaluationError(f"--data {path}: takes more memory than there is") from error
    except (ValueError, RecursionError, csv.Error) as error:
        raise EvaluationError(
            f"--data {path}: is no {path.suffix[1:].upper()} file that can be read ({error})"
        ) from error
    if not table.rows and not (table.headless and table.headless.rows):
        raise EvaluationError(f"--data {path}: the file holds no rows")
    return table


def _delimited(name: str, raw: bytes, dialect: Mapping[str, Any]) -> Table:
    csv.field_size_limit(_MOST_CELL)
    text = io.StringIO(raw.decode("utf-8-sig"), newline="")
    lines = [row for row in csv.reader(text, strict=True, **dialect) if row]
    if not lines:
        return Table(name, (), raw)
    width = len(lines[0])
    for number, row in enumerate(lines, start=1):
        if len(row) != width:
            raise ValueError(f"row {number} has {len(row)} cells and the first has {width}")
    numbers = [str(number) for number in range(1, width + 1)]
    headless = Table(name, tuple(dict(zip(numbers, row, strict=True)) for row in lines), raw)
    header = lines[0]
    rows = tuple(dict(zip(header, row, strict=True)) for row in lines[1:])
    return Table(name, rows, raw, first_line=2, headless=headless)


def _csv(name: str, raw: bytes) -> Table:
    return _delimited(name, raw, {})


def _tsv(name: str, raw: bytes) -> Table:
    # GLUE's files have lone quotation marks inside their cells.
    return _delimited(name, raw, {"delimiter": "\t", "quoting": csv.QUOTE_NONE})


def _json_lines(name: str, raw: bytes) -> Table:
    lines = raw.decode("utf-8-sig").splitlines()
    return _of_objects(name, raw, [json.loads(line) for line in lines if line.strip()])


def _json(name: str, raw: bytes) -> Table:
    """Read a list of rows, or SQuAD's tree of articles, paragraphs and questions."""
    content = json.loads(raw.decode("utf-8-sig"))
    if isinstance(content, dict) and isinstance(content.get("data"), list):
        content = content["data"]
        if content and isinstance(content[0], dict) and "paragraphs" in content[0]:
            content = _questions(content)
    if not isinstance(content, list):
        raise ValueError("expected a list of rows")  # noqa: TRY004  (what is wrong is the content)
    return _of_objects(name, raw, content)


def _questions(articles: list[Any]) -> list[Any]:
    try:
        return [
            {**question, "context": paragraph["context"]}
            for article in articles
            for paragraph in article["paragraphs"]
            for question in paragraph["qas"]
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(f"expected SQuAD's articles, and {error} is missing") from error


def _of_objects(name: str, raw: bytes, rows: list[Any]) -> Table:
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise ValueError(f"row {number} is no object with named values")  # noqa: TRY004
    return Table(name, tuple(rows), raw)


def _parquet(name: str, raw: bytes) -> Table:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise EvaluationError(
            f"--data {name}: Parquet files take a package; pip install 'norm-surgeon[data]'"
        ) from error
    try:
        file = pyarrow.parquet.ParquetFile(io.BytesIO(raw))
        return Table(name, tuple(_unpacked_rows(file, len(raw))), raw)
    except (ValueError, MemoryError):
        raise
    except Exception as error:  # of the many kinds that pyarrow has
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _unpacked_rows(file: Any, size: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of a Parquet file of bounded size: a few bytes of it can stand for millions.

    Its own description is checked first. That does not tell how often a value is repeated, so that
    only so many rows are unpacked at once as fit even if each has the largest value there may be.
    """
    most = max(_MOST_UNPACKED, _MOST_PACKING * size)
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    columns = [group.column(n) for group in groups for n in range(group.num_columns)]
    largest = max((group.total_byte_size for group in groups), default=0)
    if min((column.num_values for column in columns), default=0) < 0 or largest < 0:
        raise ValueError("its description has numbers below 0")
    unpacked = sum(group.total_byte_size for group in groups)
    unpacked = max(unpacked, sum(column.num_values for column in columns) * 8)
    if unpacked <= most:
        at_once = max(1, min(4096, _AT_ONCE // (largest + 1)))
        unpacked = 0
        for batch in file.iter_batches(batch_size=at_once):
            rows = batch.to_pylist()
            unpacked += sum(_size(row) for row in rows)
            if unpacked > most:
                break
            yield from rows
    if unpacked > most:
        raise ValueError(f"it unpacks to more than {most:,} bytes; give fewer rows")


def _size(value: Any) -> int:
    if isinstance(value, dict):
        return 8 + sum(map(_size, value.values()))
    if isinstance(value, list):
        return 8 + sum(map(_size, value))
    return 8 + (len(value) if isinstance(value, str | bytes) else 0)


FORMATS: Mapping[str, Callable[[str, bytes], Table]] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".jsonl": _json_lines,
    ".json": _json,
    ".parquet": _parquet,
}
