"""The checkpoints of a training run in the order of their steps, and its dimensions over them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from fnmatch import fnmatchcase
from itertools import compress, pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from surgeon.errors import SelectionError
from surgeon.harmless import listed
from surgeon.model.hub import list_revisions, parse_hub_id
from surgeon.ranking.zscores import ZScores

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
    models: str | Path | Sequence[str | Path],
    revisions: str | None = None,
    skip: Sequence[str] = (),
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
    names = [str(model) for model in ([models] if isinstance(models, str | Path) else models)]
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
            there = listed((one.name for one in found), _MAX_LISTED)
            raise SelectionError(f"`skip` '{pattern}': matches none of {there}")
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
            f"({listed(found, _MAX_LISTED)}); give a glob such as 'step*'"
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
        what = "is one checkpoint at most" if folder.exists() else "no such file or directory"
        raise SelectionError(f"{name}: {what}; give two or more, or the folder that holds them")
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


@dataclass(frozen=True)
class Trajectory:
    """One dimension over the steps of a run; every series has a value per checkpoint.

    ``left_at`` is the step at which an outlier of the last checkpoint became one for good: the
    first of the unbroken run of checkpoints, to the last, that flag it. ``last_in_bulk`` is the
    step before, None if there is none: then it may have been any time up to ``left_at``. Both are
    None for other dimensions. ``flagged_at`` are all steps at which it met the criterion, ``score``
    is the share of layers that flag it, ``strength`` the mean over layers of the smaller of the
    two distances, ``reach`` how large it is in as many layers as make an outlier: the criterion is
    met where that is beyond sigma. ``gain_z`` and ``bias_z`` are signed means over layers.
    """

    dim: int
    outlier: bool
    left_at: int | None
    last_in_bulk: int | None
    flagged_at: tuple[int, ...]
    score: tuple[float, ...]
    strength: tuple[float, ...]
    reach: tuple[float, ...]
    gain_z: tuple[float, ...]
    bias_z: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Percentiles:
    """Where dimensions lie among each other at each step: three percentiles."""

    p1: tuple[float, ...]
    median: tuple[float, ...]
    p99: tuple[float, ...]


@dataclass(frozen=True)
class Bulk:
    """The ``dims`` dimensions that are not outliers of the last checkpoint, taken together."""

    dims: int
    strength: Percentiles
    reach: Percentiles
    gain_z: Percentiles
    bias_z: Percentiles | None = None


@dataclass(frozen=True)
class TransientOutlier:
    """A dimension that was an outlier and is not one at the end: the first and last step it was."""

    dim: int
    first: int
    last: int


@dataclass(frozen=True)
class Repeat:
    """A checkpoint on the Hub that has the very weights of a later one, so it is left out."""

    step: int
    same_as: int


@dataclass(frozen=True)
class Trace:
    """The norms over the checkpoints of one training run.

    ``outliers`` are those of the last checkpoint, strongest first. ``trajectories`` begin with
    theirs; those of the strongest other dimensions follow. ``needed`` of ``layers`` must flag an
    outlier, each beyond ``sigma``. ``transient`` is in the order in which they came. ``bulk`` is
    None where every dimension is an outlier, ``bytes_read`` where nothing was read off the Hub.
    ``checkpoints`` are without ``repeats``.
    """

    name: str
    architecture: str
    layers: int
    hidden_size: int
    evidence: str
    gain_name: str
    criterion: str
    sigma: float
    needed: int
    checkpoints: tuple[TrainingCheckpoint, ...]
    outliers: tuple[int, ...]
    trajectories: tuple[Trajectory, ...]
    transient: tuple[TransientOutlier, ...]
    bulk: Bulk | None
    bytes_read: int | None = None
    repeats: tuple[Repeat, ...] = ()

    def __repr__(self) -> str:
        outliers = ", ".join(map(str, self.outliers)) or "none"
        return f"<Trace of {self.name}: {len(self.checkpoints)} checkpoints, outliers {outliers}>"

    @property
    def steps(self) -> tuple[int, ...]:
        """The step of each checkpoint."""
        return tuple(checkpoint.step for checkpoint in self.checkpoints)

    def to_json(self) -> dict[str, Any]:
        """Return the document that ``trace --json`` prints."""
        return {
            "model": self.name,
            "architecture": self.architecture,
            "layers": self.layers,
            "hidden_size": self.hidden_size,
            "evidence": self.evidence,
            "criterion": self.criterion,
            "sigma": self.sigma,
            "layers_needed": self.needed,
            "steps": list(self.steps),
            "checkpoints": [asdict(checkpoint) for checkpoint in self.checkpoints],
            "outliers": list(self.outliers),
            "dimensions": [asdict(trajectory) for trajectory in self.trajectories],
            "passing": [asdict(outlier) for outlier in self.transient],
            "bulk": asdict(self.bulk) if self.bulk else None,
            "bytes_read": self.bytes_read,
            "repeats": [asdict(repeat) for repeat in self.repeats],
        }


Snapshot: TypeAlias = dict[str, npt.NDArray[Any]]
"""What is kept of a checkpoint, by name: arrays of shape (hidden,).

``counts`` are the layers that flag a dimension. The others are as the series of a ``Trajectory``:
``strength``, ``reach``, ``gain_z`` and, where there is a bias, ``bias_z``.
"""


def take_snapshot(zscores: ZScores, sigma: float, needed: int) -> Snapshot:
    """Return what a trace needs of a checkpoint, nothing of which grows with the layers."""
    distance = zscores.smaller
    snapshot = {
        "counts": (distance > sigma).sum(axis=0),
        "strength": distance.mean(axis=0),
        "reach": np.sort(distance, axis=0)[-needed].copy(),  # not a view of the whole
        "gain_z": zscores.gain.mean(axis=0),
    }
    return snapshot if zscores.bias is None else {**snapshot, "bias_z": np.nanmean(zscores.bias, 0)}


def follow(
    steps: Sequence[int], snapshots: Sequence[Snapshot], layers: int, needed: int, top: int
) -> dict[str, Any]:
    """Return what a ``Trace`` has of its dimensions: ``outliers``, ``trajectories`` and the like.

    The trajectories are those of all outliers, and of others to make ``top``.
    """
    # Arrays of shape (steps, hidden).
    series = {name: np.stack([one[name] for one in snapshots]) for name in snapshots[0]}
    counts = series.pop("counts")
    flagged = counts >= needed
    order = np.lexsort((-series["strength"][-1], -counts[-1])).tolist()
    outliers = tuple(dim for dim in order if flagged[-1, dim])
    return {
        "outliers": outliers,
        # Every outlier is flagged by more layers than any other dimension, so they come first.
        "trajectories": tuple(
            _trajectory(dim, steps, flagged[:, dim], {"score": counts / layers, **series})
            for dim in order[: max(top, len(outliers))]
        ),
        "transient": _transient(steps, flagged),
        "bulk": _bulk(series, ~flagged[-1]),
    }


_Series: TypeAlias = Mapping[str, npt.NDArray[np.float64]]


def _trajectory(
    dim: int, steps: Sequence[int], flagged: npt.NDArray[np.bool_], series: _Series
) -> Trajectory:
    outlier = bool(flagged[-1])
    in_bulk = np.flatnonzero(~flagged)
    left = int(in_bulk[-1]) + 1 if in_bulk.size else 0
    return Trajectory(
        dim=dim,
        outlier=outlier,
        left_at=steps[left] if outlier else None,
        last_in_bulk=steps[left - 1] if outlier and left else None,
        flagged_at=tuple(compress(steps, flagged)),
        **{name: _floats(values[:, dim]) for name, values in series.items()},
    )


def _transient(
    steps: Sequence[int], flagged: npt.NDArray[np.bool_]
) -> tuple[TransientOutlier, ...]:
    """Return the dimensions that were outliers but no longer are, by when they came."""
    found = []
    for dim in np.flatnonzero(flagged.any(axis=0) & ~flagged[-1]).tolist():
        at = list(compress(steps, flagged[:, dim]))
        found.append(TransientOutlier(dim, at[0], at[-1]))
    return tuple(sorted(found, key=lambda outlier: (outlier.first, outlier.dim)))


def _bulk(series: _Series, rest: npt.NDArray[np.bool_]) -> Bulk | None:
    """Return where the dimensions lie that are not outliers at the end, if there are any."""
    if not rest.any():
        return None
    bands = {name: _percentiles(values[:, rest]) for name, values in series.items()}
    return Bulk(dims=int(rest.sum()), **bands)


def _percentiles(values: npt.NDArray[np.float64]) -> Percentiles:
    return Percentiles(*map(_floats, np.percentile(values, [1, 50, 99], axis=1)))


def _floats(values: npt.NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(values.tolist())
