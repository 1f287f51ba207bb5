"""The models of an atlas: how they are listed, and how one is scanned."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from surgeon.errors import CheckpointError, HubUnavailableError, SelectionError
from surgeon.model import Checkpoint
from surgeon.model.hub import parse_hub_id
from surgeon.model.ranges import FRUGAL, Meter
from surgeon.model.remote import open_remote
from surgeon.ranking.layernorm import rank_by_layernorm
from surgeon.study.engines import FAILED, Row, describe

_DIGITS = 5  # after the point; z-scores are at most the root of the hidden size


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
        SelectionError: it cannot be read, names no model, or a line is not a Hub id.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        found = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise SelectionError(f"{path}: {found}; give a list of Hub ids, one a line") from error
    entries = ((f"{path}:{n}: ", line.partition("#")[0]) for n, line in enumerate(lines, start=1))
    targets = _once(_target(where, text.strip()) for where, text in entries if text.strip())
    if not targets:
        raise SelectionError(f"{path}: names no model; write one Hub id a line")
    return targets


def targets_of(models: str | Path | Iterable[str | Target]) -> tuple[Target, ...]:
    """Return what entries of a list, or of a file with one, stand for, each once.

    Raises:
        SelectionError: one is not a Hub id, or as ``read_list``.
    """
    if isinstance(models, str | Path):
        return read_list(Path(models))
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


@dataclass(frozen=True)
class Scan:
    """Scans models: the criterion, and the bytes that the vectors of one may have."""

    sigma: float
    min_layers: float
    max_bytes: float

    def __call__(self, target: Target) -> Row:
        """Return what a model's row says of its scan, or of why that failed."""
        meter = Meter()
        try:
            found = _scan(target, self, meter)
        except Exception as error:  # noqa: BLE001  (a model that fails costs one row)
            found = {"status": FAILED, "error": describe(error)}
            found["outage"] = isinstance(error, HubUnavailableError)
        return {"bytes_read": meter.received, **found}


def _scan(target: Target, scan: Scan, meter: Meter) -> Row:
    """Return a model's columns; those of the dimensions are lists in the order of these."""
    checkpoint = open_remote(target.model, target.revision, reading=FRUGAL, meter=meter)
    _check_size(checkpoint, scan.max_bytes)
    ranking = rank_by_layernorm(checkpoint, sigma=scan.sigma, min_layers=scan.min_layers)
    zscores, by_dim = ranking.zscores, sorted(ranking.dimensions, key=attrgetter("dim"))
    assert zscores is not None
    return {
        "revision": checkpoint.revision,
        "architecture": ranking.architecture,
        "layers": ranking.layers,
        "hidden_size": ranking.hidden_size,
        "outliers": list(ranking.outliers),
        "flagged": [len(dimension.layers) for dimension in by_dim],
        "strength": _rounded([dimension.strength for dimension in by_dim]),
        "gain_z": _rounded(zscores.gain.mean(axis=0)),
        "bias_z": None if zscores.bias is None else _rounded(np.nanmean(zscores.bias, axis=0)),
        "max_gain_z": _rounded(np.abs(zscores.gain).max(axis=0)),
    }


def _check_size(checkpoint: Checkpoint, most: float) -> None:
    """Refuse a model whose layers end in dense weights that are too large to fetch for a scan."""
    sites = [site for site in checkpoint.sites if site.role == "output"]
    infos = [checkpoint.tensors[n] for site in sites for n in (site.gain, site.bias) if n]
    wanted = sum(info.end - info.start for info in infos)
    if wanted > most:
        kind = "dense weights" if any(len(info.shape) > 1 for info in infos) else "norms"
        raise CheckpointError(
            f"{checkpoint.name}: the {kind} that end its layers have {wanted / 1e6:.0f} MB; "
            "`max_bytes` sets what a model may cost"
        )


def _rounded(values: npt.ArrayLike) -> list[float]:
    rounded: list[float] = np.round(np.asarray(values), _DIGITS).tolist()
    return rounded
