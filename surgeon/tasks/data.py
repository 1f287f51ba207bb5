"""What ``data`` names → texts or a table: a file of any of several formats, or one of the Hub."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from surgeon.errors import EvaluationError
from surgeon.tasks.table import Columns, Table, as_text, locate
from surgeon.text import Texts, decoded, lines_of, nonblank, read_data_file, read_texts

HUB_PREFIX = "hf:"
"""What the name of a data set on the Hub begins with."""

_SPLITS = ("validation", "dev", "test", "train")  # what is taken where none is named
_NEEDS_PACKAGE = "take a package; pip install 'norm-surgeon[data]'"
_DELIMITERS = ",;|"  # of a file that is called CSV, which may be TSV as well
_QUOTED: Mapping[str, Any] = {"delimiter": "\t"}
# GLUE's files have lone quotation marks inside their cells.
_TABS: Mapping[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
_SPACES: Mapping[str, Any] = {**_TABS, "delimiter": " ", "skipinitialspace": True}
_HEAD = 65_536  # characters by which the delimiter is found
_MOST_UNPACKED = 2**27  # bytes of a Parquet file's values,
_MOST_PACKING = 20  # or so many times those of the file
_AT_ONCE = 2**29  # bytes of rows that are unpacked together
_MOST_CELL = 10_000_000  # characters; csv's own limit cuts off long contexts


def read_texts_of(source: str, columns: Columns, *, document: bool = False) -> Texts:
    """Read texts: the lines of a file, or the text column of a table.

    Tables are the data sets of the Hub (``hf:org/name``), the files that end as ``_FORMATS`` say,
    and any file where the column is named. A CSV or TSV file of one column needs no header.

    Args:
        source: a path, or the name of a data set.
        columns: where a table has the texts.
        document: whether a text file is one text.

    Raises:
        EvaluationError: it is not there, or holds no text, or no column for it.
    """
    suffix = Path(source).suffix.lower()
    if not source.startswith(HUB_PREFIX) and columns.text is None and suffix not in _FORMATS:
        return read_texts(Path(source), document=document)
    if document:
        raise EvaluationError(
            f"`document`: `texts` {source} is a table, each of whose rows is a text; leave it out"
        )
    table = read_table(source)
    located = locate(table, columns, pair=False, label=False)
    cells = enumerate(located.table.values(located.text))
    there = ((located.table.place(row), value) for row, value in cells if value is not None)
    lines = nonblank(as_text(value, place) for place, value in there)
    if not lines:
        raise EvaluationError(f"`texts` {table.name}: the column {located.text} holds no text")
    return Texts(located.table.name, lines, table.raw)


def read_table(source: str | Path) -> Table:
    """Read a file of rows, or a data set of the Hub (``hf:org/name``).

    Raises:
        EvaluationError: there is no such file, its format is none of those known, or it is not in
            that format.
    """
    if str(source).startswith(HUB_PREFIX):
        return _by_language(_read_hub(str(source)))
    path = Path(source)
    raw = read_data_file(path, "a file of labelled rows")
    suffix = path.suffix.lower()
    # Where a table is needed, a text file has words with their labels.
    read = _words if suffix == ".txt" else _FORMATS.get(suffix)
    if read is None:
        raise EvaluationError(
            f"`texts` {path}: rows are read from {', '.join(_FORMATS)} files; save it as one"
        )
    try:
        table = read(path.name, raw)
    except MemoryError as error:
        raise EvaluationError(f"`texts` {path}: needs more memory than is available") from error
    except (ValueError, RecursionError, csv.Error) as error:
        raise EvaluationError(
            f"`texts` {path}: not a {suffix[1:].upper()} file that can be read ({error})"
        ) from error
    if not table.rows and not table.groups:
        raise EvaluationError(f"`texts` {path}: the file holds no rows")
    return _by_language(table)


def _by_language(table: Table) -> Table:
    """Give translations, {"de": …, "en": …} in a row of the Hub's data, columns of their own."""
    pairs = zip(table.rows, table.values("translation"), strict=True)
    rows = ({**row, **part} if isinstance(part, dict) else row for row, part in pairs)
    return replace(table, rows=tuple(rows))


def _csv(name: str, raw: bytes) -> Table:
    content = decoded(name, raw)
    dialects = [{"delimiter": delimiter} for delimiter in _DELIMITERS]
    fitting = next((dialect for dialect in dialects if _fits(content, dialect)), None)
    if fitting is None and "\t" in content.partition("\n")[0]:
        return _tsv(name, raw)
    return _delimited(name, raw, content, fitting or dialects[0])


def _tsv(name: str, raw: bytes) -> Table:
    content = decoded(name, raw)
    spaced = "\t" not in content and _fits(content, _SPACES) and len(_groups(content, _SPACES)) > 1
    if spaced:
        return _words(name, raw)
    dialect = _QUOTED if '"' in content and _is_quoted(content) else _TABS
    return _delimited(name, raw, content, dialect)


def _is_quoted(content: str) -> bool:
    """Whether csv's writer, or pandas', would write a TSV file just so, quotation marks doubled."""
    try:
        rows = [row for group in _groups(content, _QUOTED, strict=True) for row in group]
    except csv.Error:
        return False
    wanted = content.replace("\r\n", "\n").rstrip("\n")
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL):
        written = io.StringIO(newline="")
        csv.writer(written, quoting=quoting, lineterminator="\n", **_QUOTED).writerows(rows)
        if written.getvalue().replace("\r\n", "\n").rstrip("\n") == wanted:
            return True
    return False


def _words(name: str, raw: bytes) -> Table:
    """Read a word per line with its labels behind it, as CoNLL's files are."""
    content = decoded(name, raw)
    if "\t" in content:
        return _delimited(name, raw, content, _TABS)
    # A blank at the end of a line would be one more cell.
    lines = "\n".join(map(str.rstrip, lines_of(content)))
    return _delimited(name, raw, lines, _SPACES)


def _fits(content: str, dialect: Mapping[str, Any]) -> bool:
    """Whether a dialect cuts the first rows of a file into the same number of cells, not one."""
    rows = [row for group in _groups(content[:_HEAD], dialect) for row in group]
    widths = {len(row) for row in (rows[:-1] if len(content) > _HEAD else rows)}
    return len(widths) == 1 and widths != {1}


def _groups(
    content: str, dialect: Mapping[str, Any], *, strict: bool = False
) -> list[list[list[str]]]:
    """Return the rows of cells, in the groups that blank lines make, without comments.

    Where there are several groups, they are sentences: a row that begins with # and has another
    number of cells than the words have is a comment.
    """
    csv.field_size_limit(_MOST_CELL)
    rows = csv.reader(io.StringIO(content, newline=""), strict=strict, **dialect)
    filled = itertools.groupby(rows, lambda row: len(row) > 1 or bool("".join(row).strip()))
    groups = [list(group) for some, group in filled if some]
    if len(groups) > 1:
        width = next((len(r) for group in groups for r in group if r[0][:1] != "#"), None)
        kept = ([r for r in group if r[0][:1] != "#" or len(r) == width] for group in groups)
        groups = [group for group in kept if group]
    return groups


def _delimited(name: str, raw: bytes, content: str, dialect: Mapping[str, Any]) -> Table:
    groups = _groups(content, dialect, strict=True)
    lines = (row for group in groups for row in group)
    header, rows = next(lines, []), []
    for number, row in enumerate(lines, start=2):
        if len(row) != len(header):
            raise ValueError(
                f"row {number} has {len(row)} cells and the first has {len(header)}; give each as "
                "many, and put those that hold the delimiter in quotation marks"
            )
        rows.append(dict(zip(header, row, strict=True)))
    return Table(name, tuple(rows), raw, first_line=2, groups=tuple(groups))


def _json_lines(name: str, raw: bytes) -> Table:
    rows = []
    for number, line in enumerate(lines_of(decoded(name, raw)), start=1):
        try:
            rows.extend([json.loads(line)] if line.strip() else [])
        except json.JSONDecodeError as error:
            where = f"line {number}, column {error.colno}"
            raise ValueError(f"{where}: {error.msg}") from error
    return _of_objects(name, raw, rows)


def _json(name: str, raw: bytes) -> Table:
    """Read a list of rows, SQuAD's tree of articles and questions, or JSON Lines all the same."""
    try:
        content = json.loads(decoded(name, raw))
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise
        return _json_lines(name, raw)
    if isinstance(content, dict) and isinstance(content.get("data"), list):
        content = content["data"]
        if content and isinstance(content[0], dict) and "paragraphs" in content[0]:
            content = _questions(content)
    if not isinstance(content, list):
        wanted = 'expected a list of rows, such as pandas writes with orient="records"'
        raise ValueError(wanted)  # noqa: TRY004  (what is wrong is the content)
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
            raise ValueError(f"row {number} is not an object with named values")  # noqa: TRY004
    return Table(name, tuple(rows), raw)


def _parquet(name: str, raw: bytes) -> Table:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise EvaluationError(f"`texts` {name}: Parquet files {_NEEDS_PACKAGE}") from error
    try:
        file = pyarrow.parquet.ParquetFile(io.BytesIO(raw))
        described = json.loads((file.schema_arrow.metadata or {}).get(b"huggingface", "{}"))
        rows = tuple(_unpacked_rows(file, len(raw)))
    except (ValueError, MemoryError, RecursionError):
        raise
    except Exception as error:  # of the many kinds that pyarrow has
        raise ValueError(f"{type(error).__name__}: {error}") from error
    for part in ("info", "features"):
        described = described.get(part) if isinstance(described, dict) else None
    return Table(name, rows, raw, classes=_class_names(described))


def _unpacked_rows(file: Any, size: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of a Parquet file of bounded size: a few bytes of it can stand for millions.

    Its own description is checked first. That does not say how often a value is repeated, so that
    only so many rows are unpacked at once as fit even if each has the largest value there may be.
    """
    most = max(_MOST_UNPACKED, _MOST_PACKING * size)
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    sizes = [group.total_byte_size for group in groups]
    counts = [group.column(n).num_values for group in groups for n in range(group.num_columns)]
    if min((*sizes, *counts), default=0) < 0:
        raise ValueError("its description has numbers below 0")
    unpacked = max(sum(sizes), sum(counts) * 8)
    if unpacked <= most:
        at_once = max(1, min(4096, _AT_ONCE // (max(sizes, default=0) + 1)))
        unpacked = 0
        for batch in file.iter_batches(batch_size=at_once):
            rows = batch.to_pylist()
            unpacked += sum(map(_size, rows))
            if unpacked > most:
                break
            yield from rows
    if unpacked > most:
        raise ValueError(f"it unpacks to more than {most:,} bytes; give fewer rows")


def _size(value: Any) -> int:
    if isinstance(value, dict | list):
        return 8 + sum(map(_size, value.values() if isinstance(value, dict) else value))
    return 8 + (len(value) if isinstance(value, str | bytes) else 0)


def _class_names(features: Any) -> dict[str, tuple[str, ...]]:
    """Return what integers stand for, by column, as datasets describes features in plain values.

    A feature of lists, such as a label for each word, says it of their entries.
    """
    found = {}
    for column, feature in features.items() if isinstance(features, dict) else ():
        entry = feature.get("feature", feature) if isinstance(feature, dict) else None
        if isinstance(entry, dict) and entry.get("_type") == "ClassLabel":
            found[column] = tuple(map(str, entry.get("names") or ()))
    return found


_FORMATS: Mapping[str, Callable[[str, bytes], Table]] = {
    ".csv": _csv, ".tsv": _tsv,
    ".conll": _words, ".bio": _words, ".iob": _words, ".iob2": _words,
    ".jsonl": _json_lines, ".ndjson": _json_lines, ".json": _json, ".parquet": _parquet,
}  # fmt: skip


def _read_hub(name: str) -> Table:
    """Load a data set with the package ``datasets``; integers of its classes keep their names."""
    path, config, split = _parts(name)
    try:
        import datasets
    except ImportError as error:
        raise EvaluationError(f"`texts` {name}: data sets on the Hub {_NEEDS_PACKAGE}") from error
    datasets.disable_progress_bars()
    try:
        if split is None:
            there = datasets.get_dataset_split_names(path, config)
            split = next((known for known in _SPLITS if known in there), there[0])
        loaded = datasets.load_dataset(path, config, split=split)
        rows = tuple(loaded.to_list())
    except Exception as error:  # what it raises has no common type
        reason = str(error).strip().splitlines() or [type(error).__name__]
        reason[0] = reason[0].replace("`", "'")  # an option would be shown there
        raise EvaluationError(
            f"`texts` {name}: {reason[0]}; give hf:org/name, and :config and :split where it has "
            "several"
        ) from error
    raw = json.dumps(rows, sort_keys=True, default=str).encode()
    return Table(name, rows, raw, classes=_class_names(loaded.features.to_dict()))


def _parts(name: str) -> tuple[str, str | None, str | None]:
    """Split the name; one further part is a split where it is called like one, else a config."""
    path, *further = re.split(
        r":(?![^\[]*\])", name.removeprefix(HUB_PREFIX)
    )  # train[:100] is a split
    if not path or len(further) > 2 or not all(further):
        raise EvaluationError(f"`texts` {name}: give hf:org/name[:config][:split]")
    if len(further) == 1:
        named = further[0].split("[")[0].split("_")[0]
        return (path, None, further[0]) if named in _SPLITS else (path, further[0], None)
    return (path, further[0], further[1]) if further else (path, None, None)
