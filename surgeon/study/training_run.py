"""The checkpoints of one training run, in the order of their steps."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path

from surgeon.errors import SelectionError
from surgeon.model.hub import list_revisions, parse_hub_id

_MAX_LISTED = 5
_MAX_STEP = 2**63 - 1  # of a column of the table

# What a step is called, the surest first: Lightning's epoch=3-step=1000 is step 1000.
_MARKS = ("step", "checkpoint|ckpt", "iter(?:ation)?", "epoch")
_NUMBER = r"([0-9]+(?:\.[0-9]+)?)([kmb](?![a-z0-9]))?"
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}


@dataclass(frozen=True)
class TrainingCheckpoint:
    """A checkpoint of a run: at which step, of which model, at which revision on the Hub."""

    step: int
    model: str
    revision: str | None = None

    @property
    def name(self) -> str:
        """What ``skip`` matches, and the step is read from."""
        if self.revision is not None:
            return self.revision
        path = _absolute(self.model)
        return path.stem if path.suffix == ".safetensors" else path.name

    @property
    def label(self) -> str:
        """What errors and progress call it."""
        return self.model if self.revision is None else f"{self.model} at {self.revision}"


def find_checkpoints(
    models: Sequence[str | Path], revisions: str | None = None, skip: Sequence[str] = ()
) -> tuple[str, tuple[TrainingCheckpoint, ...]]:
    """Find the checkpoints of a run, at least two, by ascending steps; returns its name too.

    A step is the number after ``step``, ``checkpoint``, ``iter`` or ``epoch`` in a checkpoint's
    name, such as 900k in ``seed_0-step_900k`` and 1000 in ``step1000-tokens4B``, or the only
    number that there is.

    Args:
        models: several models (directories, ``.safetensors`` files or Hub ids), one folder whose
            subfolders are model directories, or one Hub id.
        revisions: for a Hub id: a glob over its branches and tags, such as ``step*``.
        skip: globs of names to leave out, such as ``checkpoint-best``.

    Raises:
        SelectionError: these are fewer than two, one has no step in its name or several, two have
            the same, or ``revisions`` or one of ``skip`` matches none.
        CheckpointError: the Hub cannot be asked.
    """
    names = [str(model) for model in models]
    if revisions is not None:
        title, found = _on_hub(names, revisions)
    elif len(names) == 1:
        title, found = _in_folder(names[0])
    elif names:
        title, found = _absolute(names[-1]).parent.name, [_unplaced(name) for name in names]
    else:
        raise SelectionError("no checkpoints; give two or more, or the folder that holds them")
    for pattern in skip:
        if not any(fnmatchcase(one.name, pattern) for one in found):
            listed = _listed([one.name for one in found])
            raise SelectionError(f"`skip` '{pattern}': matches none of {listed}")
    kept = [
        TrainingCheckpoint(_step(one), one.model, one.revision)
        for one in found
        if not any(fnmatchcase(one.name, pattern) for pattern in skip)
    ]
    if not kept:
        raise SelectionError("`skip`: leaves out every checkpoint; a trace takes two or more")
    if len(kept) == 1:
        raise SelectionError(
            f"{kept[0].label}: the only checkpoint found; a trace takes two or more"
        )
    kept.sort(key=lambda one: one.step)
    for one, other in pairwise(kept):
        if one.step == other.step:
            raise SelectionError(
                f"{one.label} and {other.label}: both are step {one.step}; leave one out, as "
                f"with `skip` {other.name}"
            )
    return title, tuple(kept)


def _on_hub(names: list[str], revisions: str) -> tuple[str, list[TrainingCheckpoint]]:
    option = f"`revisions` '{revisions}'"
    if len(names) != 1:
        raise SelectionError(f"{option}: is for one model on the Hub; {len(names)} are given")
    (name,) = names
    repository = None if Path(name).exists() else parse_hub_id(name)
    if repository is None:
        raise SelectionError(f"{option}: {name} is not a Hub id; leave it out for folders")
    if repository.revision is not None:
        raise SelectionError(f"{option}: {name} names one revision; leave out either")
    model = repository.model
    found = list_revisions(model)
    matching = [revision for revision in found if fnmatchcase(revision, revisions)]
    if not matching:
        raise SelectionError(
            f"{option}: matches none of the {len(found)} branches and tags of {model} "
            f"({_listed(found)}); give a glob such as 'step*'"
        )
    return model, [_unplaced(model, revision) for revision in matching]


def _in_folder(name: str) -> tuple[str, list[TrainingCheckpoint]]:
    folder = Path(name)
    if not folder.exists() and parse_hub_id(name) is not None:
        raise SelectionError(
            f"{name}: not here, and one checkpoint if on the Hub; for several of its revisions "
            "add `revisions` 'step*'"
        )
    if not folder.is_dir():
        raise SelectionError(
            f"{name}: one checkpoint at most; give two or more, or the folder that holds them"
        )
    found = sorted(path.parent for path in folder.glob("*/config.json"))
    if not found:
        has = "is one checkpoint" if (folder / "config.json").is_file() else "holds no checkpoints"
        raise SelectionError(
            f"{name}: {has}, with no subfolders that have a config.json; give two or more "
            "checkpoints, or the folder that holds them"
        )
    return _absolute(name).name, [_unplaced(str(path)) for path in found]


def _unplaced(model: str, revision: str | None = None) -> TrainingCheckpoint:
    """Return a checkpoint whose step has not been read yet: its name may be one to skip."""
    return TrainingCheckpoint(-1, model, revision)


def _step(checkpoint: TrainingCheckpoint) -> int:
    """Return the step in a checkpoint's name."""
    name, label = checkpoint.name, checkpoint.label
    for mark in _MARKS:
        if numbers := _numbers(rf"(?:{mark})s?[-_=. ]*{_NUMBER}", name):
            break
    else:
        numbers = _numbers(rf"(?<![0-9.]){_NUMBER}", name)
    leave = f"leave it out with `skip` {name}, or name it like step-1000"
    if not numbers:
        raise SelectionError(f"{label}: has no step in its name; {leave}")
    if len(numbers) > 1:
        among = " or ".join(f"{number:f}" for number in sorted(numbers))
        raise SelectionError(f"{label}: may be step {among} by its name; {leave}")
    (number,) = numbers
    if number != int(number) or number > _MAX_STEP:
        raise SelectionError(f"{label}: {number:f} is not a whole number of steps; {leave}")
    return int(number)


def _numbers(pattern: str, name: str) -> set[Decimal]:
    found = re.findall(pattern, name, re.IGNORECASE | re.ASCII)
    return {(Decimal(number) * _UNITS[unit.lower()]).normalize() for number, unit in found}


def _absolute(name: str) -> Path:
    # A link has the better name than what it leads to.
    return Path(os.path.abspath(name))  # noqa: PTH100


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_MAX_LISTED]) + (", …" if len(names) > _MAX_LISTED else "")
