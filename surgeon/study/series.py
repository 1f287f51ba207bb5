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

_LISTED = 5
_LARGEST = 2**63 - 1  # of a column of the table

# What a step is called, the surest first: Lightning's epoch=3-step=1000 is step 1000.
_MARKS = ("step", "checkpoint|ckpt", "iter(?:ation)?", "epoch")
_NUMBER = r"([0-9]+(?:\.[0-9]+)?)([kmb](?![a-z0-9]))?"
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}


@dataclass(frozen=True)
class Stop:
    """One checkpoint of a run: at which step, of which model, at which revision on the Hub."""

    step: int
    model: str
    revision: str | None = None

    @property
    def name(self) -> str:
        """What ``skip`` knows it by."""
        return _name(self.model) if self.revision is None else self.revision

    @property
    def label(self) -> str:
        """What errors and progress call it."""
        return self.model if self.revision is None else f"{self.model} at {self.revision}"


@dataclass(frozen=True)
class Series:
    """The checkpoints of a run called ``name``: at least two, by ascending steps."""

    name: str
    stops: tuple[Stop, ...]


def find_series(
    checkpoints: Sequence[str | Path], revisions: str | None = None, skip: Sequence[str] = ()
) -> Series:
    """Find the checkpoints of a run, and the step of each in its name.

    That is the number after ``step``, ``checkpoint``, ``iter`` or ``epoch``, such as 900k in
    ``seed_0-step_900k`` and 1000 in ``step1000-tokens4B``, or the only number that there is.

    Args:
        checkpoints: several models (directories, ``.safetensors`` files or Hub ids), one folder
            whose subfolders are model directories, or one Hub id.
        revisions: for a Hub id: a glob over its branches and tags, such as ``step*``.
        skip: globs of names to leave out, such as ``checkpoint-best``.

    Raises:
        SelectionError: these are fewer than two, one has no step in its name or several, two have
            the same, or ``revisions`` or one of ``skip`` matches none.
        CheckpointError: the Hub cannot be asked.
    """
    names = [str(checkpoint) for checkpoint in checkpoints]
    if revisions is not None:
        title, found = _on_hub(names, revisions)
    elif len(names) == 1:
        title, found = _in_folder(names[0])
    elif names:
        title = _absolute(names[-1]).parent.name
        found = [_Found(_name(name), name, name) for name in names]
    else:
        raise SelectionError("no checkpoints; give two or more, or the folder that holds them")
    kept = _kept(found, skip)
    return _in_order(title, [Stop(_step(f.name, f.told), f.model, f.revision) for f in kept])


@dataclass(frozen=True)
class _Found:
    """A checkpoint whose step is not yet read: its own name, and what errors call it."""

    name: str
    told: str
    model: str
    revision: str | None = None


def _kept(found: Sequence[_Found], skip: Sequence[str]) -> list[_Found]:
    for pattern in skip:
        if not any(fnmatchcase(one.name, pattern) for one in found):
            names = _some([one.name for one in found])
            raise SelectionError(f"--skip '{pattern}': matches none of {names}")
    kept = [f for f in found if not any(fnmatchcase(f.name, pattern) for pattern in skip)]
    if not kept:
        raise SelectionError("--skip: leaves out every checkpoint; a trace takes two or more")
    return kept


def _on_hub(names: list[str], revisions: str) -> tuple[str, list[_Found]]:
    option = f"--revisions '{revisions}'"
    if len(names) != 1:
        raise SelectionError(f"{option}: is for one model on the Hub; {len(names)} are given")
    (model_id,) = names
    repository = None if Path(model_id).exists() else parse_hub_id(model_id)
    if repository is None:
        raise SelectionError(f"{option}: {model_id} is no Hub id; leave it out for folders")
    if repository.revision is not None:
        raise SelectionError(f"{option}: {model_id} names one revision; leave out either")
    model_id = repository.model
    found = list_revisions(model_id)
    matching = [name for name in found if fnmatchcase(name, revisions)]
    if not matching:
        raise SelectionError(
            f"{option}: matches none of the {len(found)} branches and tags of {model_id} "
            f"({_some(found)}); give a glob such as 'step*'"
        )
    return model_id, [_Found(name, f"{option}: {name}", model_id, name) for name in matching]


def _in_folder(name: str) -> tuple[str, list[_Found]]:
    folder = Path(name)
    if not folder.exists() and parse_hub_id(name) is not None:
        raise SelectionError(
            f"{name}: not here, and one checkpoint if on the Hub; for several of its revisions "
            "add --revisions 'step*'"
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
    return _absolute(name).name, [_Found(p.name, str(p), str(p)) for p in found]


def _in_order(name: str, stops: list[Stop]) -> Series:
    if len(stops) < 2:
        raise SelectionError(
            f"{stops[0].label}: the only checkpoint found; a trace takes two or more"
        )
    ordered = tuple(sorted(stops, key=lambda stop: stop.step))
    for one, other in pairwise(ordered):
        if one.step == other.step:
            raise SelectionError(
                f"{one.label} and {other.label}: both are step {one.step}; leave one out, as "
                f"with --skip {other.name}"
            )
    return Series(name, ordered)


def _step(name: str, told: str) -> int:
    """Return the step that a checkpoint's name tells."""
    for mark in _MARKS:
        if numbers := _numbers(rf"(?:{mark})s?[-_=. ]*{_NUMBER}", name):
            break
    else:
        numbers = _numbers(rf"(?<![0-9.]){_NUMBER}", name)
    leave = f"leave it out with --skip {name}, or name it like step-1000"
    if not numbers:
        raise SelectionError(f"{told}: has no step in its name; {leave}")
    if len(numbers) > 1:
        among = " or ".join(f"{number:f}" for number in sorted(numbers))
        raise SelectionError(f"{told}: may be step {among} by its name; {leave}")
    (number,) = numbers
    if number != int(number) or number > _LARGEST:
        raise SelectionError(f"{told}: {number:f} is no whole number of steps; {leave}")
    return int(number)


def _numbers(pattern: str, name: str) -> set[Decimal]:
    found = re.findall(pattern, name, re.IGNORECASE | re.ASCII)
    return {(Decimal(number) * _UNITS[unit.lower()]).normalize() for number, unit in found}


def _name(model: str) -> str:
    """Return the last part of a path or Hub id, without the suffix of a weight file."""
    path = _absolute(model)
    return path.stem if path.suffix == ".safetensors" else path.name


def _absolute(name: str) -> Path:
    # A link has the better name than what it leads to.
    return Path(os.path.abspath(name))  # noqa: PTH100


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_LISTED]) + (", …" if len(names) > _LISTED else "")
