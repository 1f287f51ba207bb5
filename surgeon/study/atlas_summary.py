"""What there is to do for an atlas, how it went, and why models failed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surgeon.study.atlas_list import Target
from surgeon.study.atlas_rows import Note, rows_path
from surgeon.study.work import FAILED

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
