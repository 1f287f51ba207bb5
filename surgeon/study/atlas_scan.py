"""What a worker of an atlas does: scan one model on the Hub, in as few bytes as it takes."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from surgeon.checkpoint import Checkpoint
from surgeon.checkpoint.model_directory import open_frugally
from surgeon.checkpoint.reading import Meter
from surgeon.errors import CheckpointError, HubUnavailableError
from surgeon.outliers.layernorm import layers_needed, rank_zscores
from surgeon.outliers.zscores import read_zscores
from surgeon.study.atlas_list import Target
from surgeon.study.work import DONE, Row, failed_row, told

_DIGITS = 5  # after the point; z-scores are at most the root of the hidden size


@dataclass(frozen=True)
class ScanSetup:
    """What all workers of an atlas share: the criterion, and the bytes a model may cost."""

    sigma: float
    min_layers: float
    max_bytes: int

    def worker(self) -> Scanner:
        """Return a worker."""
        return Scanner(self)


@dataclass(frozen=True)
class Scanner:
    """Scans models, one at a time."""

    setup: ScanSetup

    def row(self, target: Target) -> Row:
        """Scan a model. Whatever goes wrong with it is in its row."""
        time.sleep(target.delay)
        start, meter = time.monotonic(), Meter()
        try:
            found = _scan(target, self.setup, meter)
        except Exception as error:  # noqa: BLE001  (a model that fails costs one row)
            row = failed_row(target, told(error), time.monotonic() - start)
            return {
                **row,
                "bytes_read": meter.received,
                "outage": isinstance(error, HubUnavailableError),
            }
        seconds = round(time.monotonic() - start, 3)
        spent = {"bytes_read": meter.received, "seconds": seconds}
        return {**target.to_json(), "status": DONE, "error": None, **spent, **found}


def _scan(target: Target, setup: ScanSetup, meter: Meter) -> Row:
    """Return a model's columns; those of the dimensions are lists in the order of these."""
    checkpoint = open_frugally(target.model, target.revision, meter=meter)
    layers_needed(setup.min_layers, checkpoint.layers)  # refused before the norms are read
    _check_size(checkpoint, setup.max_bytes)
    zscores = read_zscores(checkpoint)
    ranking = rank_zscores(checkpoint, zscores, setup.sigma, setup.min_layers)
    by_dim = sorted(ranking.dimensions, key=lambda dimension: dimension.dim)
    return {
        "revision": checkpoint.revision,
        "architecture": ranking.architecture,
        "layers": ranking.layers,
        "hidden_size": ranking.hidden_size,
        "outliers": list(ranking.outliers),
        "flagged": [len(dimension.layers) for dimension in by_dim],
        "strength": _rounded(np.array([dimension.strength for dimension in by_dim])),
        "gain_z": _rounded(zscores.gain.mean(axis=0)),
        "bias_z": None if zscores.bias is None else _rounded(np.nanmean(zscores.bias, axis=0)),
        "max_gain_z": _rounded(np.abs(zscores.gain).max(axis=0)),
    }


def _check_size(checkpoint: Checkpoint, most: int) -> None:
    """Refuse a model whose layers end in dense weights that are too large to fetch for a scan."""
    sites = [site for site in checkpoint.sites if site.role == "output"]
    infos = [checkpoint.tensors[n] for site in sites for n in (site.gain, site.bias) if n]
    wanted = sum(info.end - info.start for info in infos)
    if wanted > most:
        kind = "dense weights" if any(len(info.shape) > 1 for info in infos) else "norms"
        raise CheckpointError(
            f"{checkpoint.name}: the {kind} that end its layers have {wanted / 1e6:.0f} MB; "
            "--max-mb sets what a model may cost"
        )


def _rounded(values: npt.NDArray[np.float64]) -> list[float]:
    rounded: list[float] = np.round(values, _DIGITS).tolist()
    return rounded
