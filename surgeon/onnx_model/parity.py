"""Does onnxruntime compute what PyTorch computes? Compared on sequences, padded ones too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from surgeon.errors import ParityError
from surgeon.onnx_model.facts import Dtype, Parity
from surgeon.onnx_model.probes import Feed

TOLERANCES: dict[Dtype, float] = {"float32": 1e-4, "float16": 2e-2}
"""The largest difference from PyTorch in float32, relative to the largest value above 1.

A float16 graph rounds every weight and every result to 11 bits, each an error of up to 5e-4, and
the layers add theirs up.
"""

_ERRORS_ONLY = 3


@dataclass(frozen=True, eq=False)
class Probe:
    """A batch, and what PyTorch gives for it.

    ``expected`` has an array per output of the graph. ``real`` is a mask over their leading axes:
    the rows that are compared.
    """

    feed: Feed
    expected: tuple[npt.NDArray[np.float32], ...]
    real: npt.NDArray[np.bool_]


def check_parity(path: Path, probes: Sequence[Probe], dtype: Dtype, otherwise: str) -> Parity:
    """Compare an ONNX file with what PyTorch gave, with graph optimisations on and off.

    Fusions may change results where a dimension is extreme, so each must hold. ``otherwise`` is
    what an error tells the user to do instead.

    Raises:
        ParityError: they differ by more than the dtype's tolerance, or a value is not a number
            where the other is one.
    """
    levels = onnxruntime.GraphOptimizationLevel
    on = _largest_difference(path, probes, levels.ORT_ENABLE_ALL)
    off = _largest_difference(path, probes, levels.ORT_DISABLE_ALL)
    scale = max(float(np.abs(e[p.real]).max()) for p in probes for e in p.expected)
    for largest, how in ((on, "on"), (off, "off")):
        if not largest <= TOLERANCES[dtype] * max(1.0, scale):
            raise ParityError(
                f"{path.name}: the exported graph differs from PyTorch by {largest:.2g} (values up "
                f"to {scale:.2g}, graph optimisations {how}), over {TOLERANCES[dtype]:g}; "
                f"{otherwise}"
            )
    return Parity(
        largest=on,
        relative=on / scale if scale else 0.0,
        sequences=sum(len(probe.feed["input_ids"]) for probe in probes),
        batches=len(probes),
        largest_unoptimized=off,
    )


def _largest_difference(
    path: Path, probes: Sequence[Probe], level: onnxruntime.GraphOptimizationLevel
) -> float:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = _ERRORS_ONLY
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    largest = 0.0
    for probe in probes:
        for expected, got in zip(probe.expected, session.run(None, dict(probe.feed)), strict=True):
            difference = np.abs(expected[probe.real].astype(np.float64) - got[probe.real])
            largest = max(largest, float(np.nan_to_num(difference, nan=np.inf).max()))
    return largest
