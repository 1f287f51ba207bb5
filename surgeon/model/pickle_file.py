"""A ``pytorch_model.bin``, read in place: nothing of it runs, and no tensor need fit in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from surgeon.errors import CheckpointError
from surgeon.model.files import weights_size
from surgeon.model.tensors import BITS, PIECE, TensorFile

_BLOCK = 2**18  # bytes of the directory that are read together
# How the safetensors library orders the tensors of a file that it writes, the first one last.
_ORDER = (
    "BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "I16", "U16", "F16", "BF16", "I32", "U32", "F32",
    "C64", "F64", "I64", "U64",
)  # fmt: skip


@dataclass(frozen=True)
class PickleFile(TensorFile):
    """The tensors of a pickle where they lie in it.

    ``strides``, in elements, are those of tensors whose elements lie in another order, such as
    transposed ones: of these the offsets in ``tensors`` hold the first element and the last.
    """

    strides: Mapping[str, tuple[int, ...]]

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield a tensor's bytes in its own order, in pieces of bounded length."""
        if name not in self.strides:
            yield from super().pieces(name)
            return
        info = self.tensors[name]
        size = BITS[info.dtype] // 8
        lying = np.memmap(self.path, f"V{size}", "r", info.start, (info.end - info.start) // size)
        view = np.lib.stride_tricks.as_strided(
            lying, info.shape, [stride * size for stride in self.strides[name]], writeable=False
        )
        pieces: Any = np.nditer(
            view, flags=["external_loop", "buffered"], order="C", buffersize=PIECE // size
        )
        yield from (piece.tobytes() for piece in pieces)

    def write_safetensors(self, path: Path) -> None:
        """Write the tensors as one safetensors file, tensors that share storage each in full.

        It is the file that the safetensors library would write, of which not more than one piece
        of one tensor is in memory.
        """
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        end = 0
        names = sorted(self.tensors, key=lambda n: (-_ORDER.index(self.tensors[n].dtype), n))
        for name in names:
            info = self.tensors[name]
            start, end = end, end + info.size * BITS[info.dtype] // 8
            header[name] = {"dtype": info.dtype, "shape": info.shape, "data_offsets": (start, end)}
        raw = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        raw += b" " * (-len(raw) % 8)
        try:
            with path.open("xb") as file:
                file.write(len(raw).to_bytes(8, "little") + raw)
                for name in names:
                    file.writelines(self.pieces(name))
        except OSError as error:  # of which a failed write does not say the file
            error.filename = error.filename or str(path)
            raise


def open_pickle(path: Path) -> PickleFile:
    """Find the tensors of a pickle.

    Raises:
        CheckpointError: the file is no PyTorch pickle, carries more than tensors, or holds a
            dtype that safetensors cannot hold.
    """
    from surgeon.model.torch_pickle import read_directory  # which safetensors have no use for

    size = weights_size(path)
    with path.open("rb") as file:

        def part(start: int, length: int) -> bytes:
            return os.pread(file.fileno(), length, start)

        found = read_directory(str(path), size, part, block=_BLOCK, on_disk=True)
        for name, head in found.heads.items():
            if not head.is_right(part(head.start, head.end - head.start)):
                raise CheckpointError(
                    f"{path}: {name} does not lie where the directory says; the file is damaged: "
                    "fetch it again"
                )
    return PickleFile(path, found.tensors, found.strides)
