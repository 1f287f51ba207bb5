"""The models on the Hub that an atlas is made of, and the file that lists them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from surgeon.errors import SelectionError
from surgeon.model.hub import parse_hub_id


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
        SelectionError: there is no such file, it names no model, or a line is not a Hub id.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise SelectionError(f"{path}: no such file; give a list of Hub ids, one a line") from error
    except IsADirectoryError as error:
        raise SelectionError(f"{path}: is a directory; give a list of Hub ids") from error
    except UnicodeDecodeError as error:
        raise SelectionError(f"{path}: is not UTF-8 text; give a list of Hub ids") from error
    entries = ((f"{path}:{n}: ", line.partition("#")[0]) for n, line in enumerate(lines, start=1))
    targets = _once(_target(where, text.strip()) for where, text in entries if text.strip())
    if not targets:
        raise SelectionError(f"{path}: names no model; write one Hub id a line")
    return targets


def targets_of(models: Iterable[str | Target]) -> tuple[Target, ...]:
    """Return what entries of a list stand for, each once.

    Raises:
        SelectionError: one is not a Hub id.
    """
    return _once(m if isinstance(m, Target) else _target("", m) for m in models)


def _target(where: str, text: str) -> Target:
    found = parse_hub_id(text)
    if found is None or len((found.revision or "").split()) > 1:
        raise SelectionError(
            f"{where}{text!r} is not a Hub id; give organization/name or organization/name@revision"
        )
    return Target(found.model, found.revision)


def _once(targets: Iterable[Target]) -> tuple[Target, ...]:
    return tuple({target.key: target for target in targets}.values())
