"""The files that hold the tensors of an ONNX graph, each of which knows where its bytes are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from surgeon.errors import CheckpointError
from surgeon.model.tensors import TensorFile, TensorInfo
from surgeon.onnx.file_graph import FileGraph
from surgeon.onnx.wire import unpack


@dataclass(frozen=True)
class OnnxTensorFile(TensorFile):
    """A file that holds tensors of an ONNX model at known offsets, and other bytes between.

    ``packed`` are those in ``int32_data``: numbers of 16 bits, in as few bytes as each takes.
    """

    packed: frozenset[str]

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield a tensor's bytes as raw data has them, in pieces of bounded length."""
        if name not in self.packed:
            yield from super().pieces(name)
            return
        info = self.tensors[name]
        try:
            numbers = unpack(b"".join(super().pieces(name)))
        except CheckpointError as error:
            raise CheckpointError(f"{self.path}: tensor {name}: {error}") from error
        if numbers.size != info.size or (numbers >> np.uint64(16)).any():
            raise CheckpointError(
                f"{self.path}: tensor {name} claims the shape {list(info.shape)} of {info.dtype} "
                f"and its int32_data are {numbers.size} numbers, not {info.size} of 16 bits"
            )
        yield numbers.astype("<u2").tobytes()


def tensor_files(graph: FileGraph) -> tuple[OnnxTensorFile, ...]:
    """Return the ONNX file and its data files, with the tensors that each one holds."""
    locations: dict[str | None, dict[str, TensorInfo]] = {
        name: {} for name in (None, *graph.locations)
    }
    for name, stored in graph.tensors.items():
        if not stored.obstacle:
            locations.setdefault(stored.location, {})[name] = stored.info
    packed = frozenset(name for name, stored in graph.tensors.items() if stored.packed)
    return tuple(
        OnnxTensorFile(graph.path.parent / location if location else graph.path, tensors, packed)
        for location, tensors in locations.items()
    )
