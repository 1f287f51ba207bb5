"""The checkpoints of one training run, in the order of their steps."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path

from surgeon.checkpoint.hub import looks_like_hub_id
from surgeon.checkpoint.revisions import list_revisions
from surgeon.errors import SelectionError

_LISTED = 5


@dataclass(frozen=True)
class Stop:
    """One checkpoint of a run: at which step, of which model, at which revision on the Hub."""

    step: int
    model: str
    revision: str | None = None

    @property
    def label(self) -> str:
        """What errors and progress call it."""
        return self.model if self.revision is None else f"{self.model} at {self.revision}"


@dataclass(frozen=True)
class Series:
    """The checkpoints of a run called ``name``: at least two, by ascending steps."""

    name: str
    stops: tuple[Stop, ...]


def find_series(checkpoints: Sequence[str | Path], revisions: str | None = None) -> Series:
    """Find the checkpoints of a run; the step of each is the last whole number in its name.

    Args:
        checkpoints: several models (directories, ``.safetensors`` files or Hub ids), one folder
            whose subfolders are model directories, or one Hub id.
        revisions: for a Hub id: a glob over its branches and tags, such as ``step*``.

    Raises:
        SelectionError: these are fewer than two, one has no step in its name, two have the same,
            or ``revisions`` matches none.
        CheckpointError: the Hub cannot be asked.
    """
    names = [str(checkpoint) for checkpoint in checkpoints]
    if revisions is not None:
        return _in_order(*_on_hub(names, revisions))
    if len(names) == 1:
        return _in_order(*_in_folder(names[0]))
    if not names:
        raise SelectionError("no checkpoints; give two or more, or the folder that holds them")
    stops = [Stop(_step(_name(name), name), name) for name in names]
    return _in_order(_absolute(names[-1]).parent.name, stops)


def _on_hub(names: list[str], revisions: str) -> tuple[str, list[Stop]]:
    option = f"--revisions '{revisions}'"
    if len(names) != 1:
        raise SelectionError(f"{option}: is for one model on the Hub; {len(names)} are given")
    (model_id,) = names
    if Path(model_id).exists() or not looks_like_hub_id(model_id):
        raise SelectionError(f"{option}: {model_id} is no Hub id; leave it out for folders")
    found = list_revisions(model_id)
    matching = [name for name in found if fnmatchcase(name, revisions)]
    if not matching:
        raise SelectionError(
            f"{option}: matches none of the {len(found)} branches and tags of {model_id} "
            f"({_some(found)}); give a glob such as 'step*'"
        )
    stops = [Stop(_step(name, f"{option}: {name}"), model_id, name) for name in matching]
    return model_id, stops


def _in_folder(name: str) -> tuple[str, list[Stop]]:
    folder = Path(name)
    if not folder.exists() and looks_like_hub_id(name):
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
    return _absolute(name).name, [Stop(_step(p.name, str(p)), str(p)) for p in found]


def _in_order(name: str, stops: list[Stop]) -> Series:
    if len(stops) < 2:
        raise SelectionError(
            f"{stops[0].label}: the only checkpoint found; a trace takes two or more"
        )
    ordered = tuple(sorted(stops, key=lambda stop: stop.step))
    for one, other in pairwise(ordered):
        if one.step == other.step:
            raise SelectionError(
                f"{one.label} and {other.label}: both are step {one.step}; leave one out"
            )
    return Series(name, ordered)


def _step(name: str, told: str) -> int:
    numbers = re.findall(r"[0-9]+", name)
    if not numbers:
        raise SelectionError(
            f"{told}: has no step in its name; leave it out, or name it like step-1000"
        )
    return int(numbers[-1])


def _name(model: str) -> str:
    """Return the last part of a path or Hub id, without the suffix of a weight file."""
    path = _absolute(model)
    return path.stem if path.suffix == ".safetensors" else path.name


def _absolute(name: str) -> Path:
    # A link has the better name than what it leads to.
    return Path(os.path.abspath(name))  # noqa: PTH100


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_LISTED]) + (", …" if len(names) > _LISTED else "")
