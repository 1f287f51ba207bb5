"""The rows of an atlas beside its table: a line per model, from the moment that it is done."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from surgeon.errors import OutputError, SelectionError
from surgeon.model.hub import parse_hub_id
from surgeon.study import journal
from surgeon.study.jobs import (
    DONE,
    FAILED,
    Row,
)

_WHAT = "an atlas"
_MARK = b'{"atlas":1'
_BEGIN = b'{"'


@dataclass(frozen=True)
class Note:
    """What is remembered of a model's row, which itself stays in the file, at byte ``start``."""

    start: int
    status: str
    error: str | None
    outliers: int


@dataclass(frozen=True)
class Criterion:
    """What makes an outlier in all rows of an atlas."""

    sigma: float
    min_layers: float


def rows_path(output: Path) -> Path:
    """Return where the rows of a table are."""
    return output.with_name(f"{output.name}.rows.jsonl")


@contextlib.contextmanager
def opened(output: Path, criterion: Criterion) -> Iterator[tuple[dict[str, Note], BinaryIO]]:
    """Open the rows of an atlas for one process: a note of each model by its key, and the file.

    Raises:
        OutputError: something else is at ``output`` or where its rows go, the rows are of another
            criterion or damaged, or another process has them open.
    """
    path = rows_path(output)
    _check_ours(output, path)
    output.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        journal.lock(file, output, "another run")
        notes = _read(output, path, file, criterion)
        if file.seek(0, 2) == 0:
            journal.append(file, {"atlas": 1, **vars(criterion)})
        yield notes, file


def read_notes(output: Path, criterion: Criterion) -> dict[str, Note]:
    """Return a note of each model that has a row, and leave everything as it is.

    Raises:
        OutputError: as ``opened``.
    """
    path = rows_path(output)
    _check_ours(output, path)
    if not path.is_file():
        return {}
    with path.open("rb") as file:
        return _read(output, path, file, criterion)


def note_of(row: Row, start: int) -> Note:
    """Return what is remembered of a row."""
    return Note(start, row["status"], row["error"], len(row.get("outliers", ())))


def _check_ours(output: Path, path: Path) -> None:
    if not path.is_file():
        if output.exists() or path.exists():
            raise OutputError(f"-o {output}: is there and no atlas with its rows; name another")
        return
    with path.open("rb") as file:
        start = file.read(len(_MARK))
    if not _MARK.startswith(start):
        raise OutputError(f"-o {output}: {path} is there and has no rows of an atlas; name another")


def _read(output: Path, path: Path, file: BinaryIO, criterion: Criterion) -> dict[str, Note]:
    notes: dict[str, Note] = {}
    for number, (start, row) in enumerate(journal.read(path, file, _WHAT, _BEGIN), start=1):
        if number == 1:
            _check_criterion(output, row, criterion)
            continue
        try:
            key = Target(row["model"], row["asked"]).key
            note = note_of(row, start)
        except (KeyError, TypeError) as error:
            raise journal.damaged(path, number, _WHAT) from error
        if note.status not in (DONE, FAILED):
            raise journal.damaged(path, number, _WHAT)
        notes[key] = note
    return notes


def _check_criterion(output: Path, row: Row, criterion: Criterion) -> None:
    made = {name: row.get(name) for name in vars(criterion)}
    if made != vars(criterion):
        raise OutputError(
            f"-o {output}: was begun with --sigma {made['sigma']} --min-layers "
            f"{made['min_layers']}; give the same, or name another"
        )


@dataclass(frozen=True)
class Target:
    """A model on the Hub to scan.

    ``revision`` is a branch, a tag or a commit as it was asked for (None: the default branch).
    """

    model: str
    revision: str | None = None
    group: ClassVar[None] = None  # models have nothing in common

    @property
    def key(self) -> str:
        """The entry of the list that stands for it."""
        return self.model if self.revision is None else f"{self.model}@{self.revision}"

    def to_json(self) -> dict[str, Any]:
        """Return what it is, as a row says it."""
        return {"model": self.model, "asked": self.revision}


def read_list(path: Path) -> tuple[Target, ...]:
    """Read a list of models: a Hub id per line, ``@revision`` after it or not, ``#`` comments.

    Raises:
        SelectionError: there is no such file, it names no model, or a line is no Hub id.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise SelectionError(f"{path}: no such file; give a list of Hub ids, one a line") from error
    except IsADirectoryError as error:
        raise SelectionError(f"{path}: is a directory; give a list of Hub ids") from error
    except UnicodeDecodeError as error:
        raise SelectionError(f"{path}: is no UTF-8 text; give a list of Hub ids") from error
    entries = ((f"{path}:{n}: ", line.partition("#")[0]) for n, line in enumerate(lines, start=1))
    targets = _once(_target(where, text.strip()) for where, text in entries if text.strip())
    if not targets:
        raise SelectionError(f"{path}: names no model; write one Hub id a line")
    return targets


def targets_of(models: Iterable[str | Target]) -> tuple[Target, ...]:
    """Return what entries of a list stand for, each once.

    Raises:
        SelectionError: one is no Hub id.
    """
    return _once(m if isinstance(m, Target) else _target("", m) for m in models)


def _target(where: str, text: str) -> Target:
    found = parse_hub_id(text)
    if found is None or len((found.revision or "").split()) > 1:
        raise SelectionError(
            f"{where}{text!r} is no Hub id; write organization/name or organization/name@revision"
        )
    return Target(found.model, found.revision)


def _once(targets: Iterable[Target]) -> tuple[Target, ...]:
    return tuple({target.key: target for target in targets}.values())
