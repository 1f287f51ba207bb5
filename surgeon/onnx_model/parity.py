"""Does onnxruntime compute what PyTorch computes? Compared on sequences, padded ones too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from surgeon.errors import ExportError
from surgeon.onnx_model.facts import Parity
from surgeon.scoring.examples import Batch

TOLERANCE = 1e-4
"""The largest difference in float32, relative to the largest value where that is above 1."""

Run: TypeAlias = Callable[[Batch], npt.NDArray[np.float32]]


def check_parity(path: Path, reference: Run, batches: Sequence[Batch]) -> Parity:
    """Compare an ONNX file with a reference; both map a batch to (sequences, tokens, width).

    Raises:
        ExportError: they differ by more than ``TOLERANCE``, or a value is not a number where the
            other is one.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    largest, scale = 0.0, 0.0
    for batch in batches:
        real = batch["attention_mask"].astype(bool)
        expected, got = reference(batch)[real], session.run(None, dict(batch))[0][real]
        difference = np.abs(expected.astype(np.float64) - got)
        largest = max(largest, float(np.nan_to_num(difference, nan=np.inf).max()))
        scale = max(scale, float(np.abs(expected).max()))
    if not largest <= TOLERANCE * max(1.0, scale):
        raise ExportError(
            f"{path.name}: the exported graph differs from PyTorch by {largest:.2g} (values up to "
            f"{scale:.2g}), over {TOLERANCE:g}; use --no-onnx for the safetensors half alone"
        )
    rows = sum(len(batch["attention_mask"]) for batch in batches)
    return Parity(largest, largest / scale if scale else 0.0, rows, len(batches))
