"""Which tensor of a checkpoint is broken: the first question where a model gives no numbers."""

from __future__ import annotations

import numpy as np

from surgeon.checkpoint.checkpoint import Checkpoint
from surgeon.checkpoint.dtypes import FLOATS


def find_not_finite(checkpoint: Checkpoint) -> str:
    """Name the first tensor with a NaN or an infinity, its file and how many; "" if none has.

    Reads all weights, one tensor at a time.
    """
    for name, info in checkpoint.tensors.items():
        if info.dtype not in FLOATS:
            continue
        if count := info.size - int(np.isfinite(checkpoint.read(name)).sum()):
            where = checkpoint.where(name)
            return f"{where}: {name} holds {count} of {info.size} values that are not finite"
    return ""
