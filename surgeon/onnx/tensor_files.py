"""The files that hold the tensors of an ONNX graph, each of which knows where its bytes are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from surgeon.errors import CheckpointError
from surgeon.model.safetensors_file import SafetensorsFile, editable_dtype
from surgeon.onnx.file_graph import FileGraph
from surgeon.onnx.wire import unpack


@dataclass(frozen=True)
class TensorFile(SafetensorsFile):
    """A file that holds tensors of an ONNX model at known offsets, and other bytes between.

    ``packed`` are those in ``int32_data``: numbers of 16 bits, in as few bytes as each takes.
    """

    packed: frozenset[str] = frozenset()

    def read(self, name: str) -> npt.NDArray[Any]:
        """Read one floating-point tensor, as a safetensors file does."""
        if name not in self.packed:
            return super().read(name)
        info = self.tensors[name]
        dtype = editable_dtype(str(self.path), info)
        try:
            numbers = unpack(b"".join(self.pieces(name)))
        except CheckpointError as error:
            raise CheckpointError(f"{self.path}: tensor {name}: {error}") from error
        if numbers.size != info.size or (numbers >> np.uint64(16)).any():
            raise CheckpointError(
                f"{self.path}: tensor {name} claims the shape {list(info.shape)} of {info.dtype} "
                f"and its int32_data are {numbers.size} numbers, not {info.size} of 16 bits"
            )
        return numbers.astype("<u2").view(dtype).reshape(info.shape)


def tensor_files(graph: FileGraph) -> tuple[TensorFile, ...]:
    """Return the ONNX file and its data files, with the tensors that each one holds."""
    locations: dict[str | None, dict[str, Any]] = {name: {} for name in (None, *graph.locations)}
    for name, stored in graph.tensors.items():
        if not stored.obstacle:
            locations.setdefault(stored.location, {})[name] = stored.info
    packed = frozenset(name for name, stored in graph.tensors.items() if stored.packed)
    return tuple(
        TensorFile(graph.path.parent / location if location else graph.path, tensors, {}, packed)
        for location, tensors in locations.items()
    )
