"""The data files beside an ONNX file: where a tensor lies in one, if it may lie there.

Follows https://onnx.ai/onnx/repo-docs/ExternalData.html. An ONNX file is untrusted input: what it
says about other files is checked before any of them is opened.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from surgeon.checkpoint import TensorInfo
from surgeon.checkpoint.dtypes import BITS
from surgeon.checkpoint.links import may_follow
from surgeon.errors import CheckpointError
from surgeon.onnx_model.file_graph import StoredTensor


@dataclass(frozen=True)
class DataFiles:
    """The data files of the model at ``path``: links stay in ``root``; ``sizes`` are of those seen.

    A location is a path relative to the model's own folder.
    """

    path: Path
    root: Path
    sizes: dict[str, int] = field(default_factory=dict)

    def locate(self, info: TensorInfo, entries: Mapping[str, str]) -> StoredTensor:
        """Place a tensor in its data file.

        Args:
            info: the tensor, with its length in bytes as the end.
            entries: the ``external_data`` of its TensorProto.

        Raises:
            CheckpointError: the file is not beside the model, or not as long as the tensor needs.
        """
        location, claimed = entries.get("location", ""), entries.get("length")
        size = self._size(info.name, location)
        start = _number(entries.get("offset", "0"))
        # Of a type that surgeon does not know, the file alone says how long it is.
        length = info.end if info.dtype in BITS else _number(claimed or "0")
        if start + length > size or (claimed and _number(claimed) != length):
            raise CheckpointError(
                f"tensor {info.name} claims {claimed or length} bytes from {start} of "
                f"{location!r}, which has {size}, for the shape {list(info.shape)}"
            )
        return StoredTensor(dataclasses.replace(info, start=start, end=start + length), location)

    def _size(self, tensor: str, location: str) -> int:
        if location not in self.sizes:
            path = PurePosixPath(location)
            leaves = path.is_absolute() or ".." in path.parts or not path.parts
            if leaves or not {"\\", "\0"}.isdisjoint(location):
                raise CheckpointError(
                    f"tensor {tensor} has its data in {location!r}, which is no file beside it"
                )
            file = self.path.parent / path
            if not file.is_file() or file.samefile(self.path):
                raise CheckpointError(f"its data file {location!r} is missing; put it beside it")
            if not may_follow(self.root, file):
                raise CheckpointError(f"its data file {location!r} is a link to elsewhere")
            self.sizes[location] = file.stat().st_size
        return self.sizes[location]


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise CheckpointError(f"{text!r} is no offset or length of external data")
    return int(text)
