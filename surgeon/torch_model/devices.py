"""Where PyTorch runs a model, and in which dtype."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from surgeon.errors import ExportError, SelectionError
from surgeon.model import Checkpoint

# Best first, for auto.
_THERE: Mapping[str, Callable[[], bool]] = {
    "cuda": torch.cuda.is_available,
    "mps": torch.backends.mps.is_available,
    "cpu": lambda: True,
}
_DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16}


def find_device(asked: str) -> str:
    """Return the device of a name, or for "auto" the best that is there.

    Raises:
        SelectionError: PyTorch has none of that name here.
    """
    there = [name for name, is_there in _THERE.items() if is_there()]
    if asked == "auto":
        return there[0]
    if asked not in there:
        raise SelectionError(
            f"`device` {asked}: PyTorch {torch.__version__} has {' and '.join(there)} here; use "
            "one of these, or auto"
        )
    return asked


def move(model: torch.nn.Module, checkpoint: Checkpoint, device: str) -> None:
    """Move a model that was loaded in float32 to a device, in the dtype of most of its weights.

    On the CPU it stays in float32.

    Raises:
        ExportError: it does not fit.
    """
    if device == "cpu":
        return
    sizes: dict[str, int] = {}
    for info in checkpoint.tensors.values():
        sizes[info.dtype] = sizes.get(info.dtype, 0) + info.size
    dtype = _DTYPES.get(max(sizes, key=lambda name: sizes[name]), torch.float32)
    try:
        model.to(device=device, dtype=dtype)
    except torch.OutOfMemoryError as error:
        raise ExportError(
            f"{checkpoint.name}: its {checkpoint.parameters_total:,} parameters in {dtype} do not "
            f"fit into the memory of {device}",
            "use `device` cpu",
        ) from error
