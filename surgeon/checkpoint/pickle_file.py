"""A ``pytorch_model.bin``: read without running its code, handed out like any other weights.

This is the only reader that needs torch. ``torch.load(weights_only=True)`` refuses every global
that is not a tensor's, so a pickle cannot carry code (``pytorch.org/docs``, "weights_only").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from surgeon.checkpoint.lfs import POINTER_BYTES, refuse_pointer
from surgeon.checkpoint.safetensors_file import PIECE, TensorInfo, editable_dtype
from surgeon.errors import CheckpointError, OutputError

_DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
    "uint64": "U64", "uint32": "U32", "uint16": "U16", "complex64": "C64",
}  # fmt: skip


@dataclass(frozen=True)
class PickleFile:
    """The tensors of a pickle, in memory on the CPU; offsets in ``tensors`` mean nothing."""

    path: Path
    tensors: Mapping[str, TensorInfo]
    values: Mapping[str, Any]

    def read(self, name: str) -> npt.NDArray[Any]:
        """Return one floating-point tensor as an array of its own dtype."""
        info = self.tensors[name]
        dtype = editable_dtype(str(self.path), info)
        return np.frombuffer(self._raw(name).tobytes(), dtype=dtype).reshape(info.shape)

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield a tensor's bytes, of any dtype, in pieces of bounded length."""
        raw = self._raw(name)
        for start in range(0, raw.size, PIECE):
            yield raw[start : start + PIECE].tobytes()

    def _raw(self, name: str) -> npt.NDArray[np.uint8]:
        import torch

        raw: npt.NDArray[np.uint8] = (
            self.values[name].contiguous().reshape(-1).view(torch.uint8).numpy()
        )
        return raw

    def write_safetensors(self, path: Path) -> None:
        """Write the tensors as one safetensors file, tensors that share storage each in full.

        Raises:
            OutputError: the file cannot be written, for want of room most likely.
        """
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        apart = {name: value.contiguous().clone() for name, value in self.values.items()}
        try:
            save_file(apart, path, metadata={"format": "pt"})
        except SafetensorError as error:  # the library's own for what the system says
            raise OutputError(f"{path}: {error}; make room there, or name another place") from error


def open_pickle(path: Path) -> PickleFile:
    """Load a pickle's tensors to the CPU.

    Raises:
        CheckpointError: the file is no PyTorch pickle, carries more than tensors, or holds a
            dtype that safetensors cannot hold.
    """
    import torch

    with path.open("rb") as file:
        refuse_pointer(str(path), file.read(POINTER_BYTES))
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:
        # torch's own words advise to load the file without this protection, and colour it.
        raise CheckpointError(
            f"{path}: damaged, or holds more than plain tensors: a pickle can carry code, so that "
            "nothing else is loaded from it; fetch it again, or save the model as safetensors "
            f"({type(error).__name__})"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise CheckpointError(
            f"{path}: holds something other than a flat map of tensors; save model.state_dict()"
        )
    return PickleFile(path, {name: _info(path, name, v) for name, v in state.items()}, state)


def _info(path: Path, name: str, value: Any) -> TensorInfo:
    if not isinstance(name, str):
        raise CheckpointError(
            f"{path}: tensor {name!r}: its name is no text; save model.state_dict()"
        )
    if value.is_meta:
        raise CheckpointError(
            f"{path}: tensor {name} holds no data (it is on the meta device); save the model again "
            "without offloading"
        )
    dtype = str(value.dtype).removeprefix("torch.")
    if dtype not in _DTYPES or value.layout.__repr__() != "torch.strided":
        raise CheckpointError(f"{path}: tensor {name} is {value.layout} {dtype}, not plain numbers")
    return TensorInfo(name, _DTYPES[dtype], tuple(value.shape), 0, value.nbytes)
