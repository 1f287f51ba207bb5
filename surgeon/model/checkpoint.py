"""A model as it lies in files: its tensors by name, its configuration, and the sites among them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from surgeon.families import Family, Site, by_layer, one_stream
from surgeon.families.sites import stream_width
from surgeon.model.ranges import Meter
from surgeon.model.tensors import FLOATS, TensorFile, TensorInfo

CONFIG = "config.json"


@dataclass(frozen=True)
class Architecture:
    """What a model's layers are: the family, and every place where one of them writes."""

    family: Family
    sites: tuple[Site, ...]


@dataclass(frozen=True)
class Checkpoint:
    """A model in files of any kind, on disk or on the Hub.

    Nothing but the headers of the files is read until ``read`` asks for a tensor.

    Attributes:
        name: the model's name for people and reports: the Hub id where it is known.
        directory: where the files are; of a model that is read from the Hub, its id.
        config: the configuration, empty if there is none.
        files: the files that hold the tensors.
        describe: finds the architecture: by the configuration, or in the graph of an ONNX file.
        parameters_total: the number of scalars that are weights; buffers of indices do not count.
        index: the name of the index, if the files are shards.
        revision: the commit on the Hub.
        sites_pattern: what a person said about the norms of an architecture without a row.
        alone: the weight file is all of the model: its folder may be anybody's.
        conversion: the pull request on the Hub that the safetensors are of, where the default
            branch has a pickle alone.
        meter: counts the bytes that are read from the Hub; None for files on disk.
    """

    name: str
    directory: Path
    config: Mapping[str, Any]
    files: tuple[TensorFile, ...]
    describe: Callable[[Checkpoint], Architecture]
    parameters_total: int
    index: str | None = None
    revision: str | None = None
    sites_pattern: str | None = None
    alone: bool = False
    conversion: str | None = None
    meter: Meter | None = None

    @cached_property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Every tensor by name, in the order of the files."""
        return {name: info for file in self.files for name, info in file.tensors.items()}

    @cached_property
    def homes(self) -> Mapping[str, TensorFile]:
        """The file that holds each tensor."""
        return {name: file for file in self.files for name in file.tensors}

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of every tensor."""
        return {name: info.shape for name, info in self.tensors.items()}

    @property
    def source(self) -> Path:
        """What holds the model: its directory, or the weight file that is all of it."""
        return self.files[0].path if self.alone else self.directory

    def read(self, name: str) -> npt.NDArray[Any]:
        """Read one floating-point tensor in its own dtype."""
        return self.homes[name].read(name)

    def where(self, name: str) -> str:
        """Say where a tensor is, for an error."""
        return str(self.homes[name].path)

    def prefetch(self, names: Iterable[str]) -> None:
        """Fetch tensors together, ahead of ``read``."""
        wanted = set(names)
        for file in self.files:
            file.prefetch(wanted & file.tensors.keys())

    @cached_property
    def architecture(self) -> Architecture:
        """The family, and the sites of every role that share the first output site's dimensions.

        Raises:
            UnknownArchitectureError: no row of the registry describes the model.
            CheckpointError: the weights are not those of the family, or lack layers.
            SelectionError: ``sites_pattern`` fits no module.
        """
        found = self.describe(self)
        return Architecture(found.family, one_stream(found.sites, self.shapes))

    @property
    def family(self) -> Family:
        """The row of the registry that describes the model, or a row without templates."""
        return self.architecture.family

    @property
    def sites(self) -> tuple[Site, ...]:
        """Every site of every role, as ``architecture`` has them."""
        return self.architecture.sites

    @property
    def hidden_size(self) -> int:
        """How many dimensions the residual stream has."""
        return stream_width(self.sites, self.shapes)

    @property
    def layers(self) -> int:
        """How many layers have an output site."""
        return len(by_layer(self.sites))


def count_floats(files: Iterable[TensorFile]) -> int:
    """Return the number of floating-point scalars in files."""
    infos = (info for file in files for info in file.tensors.values())
    return sum(info.size for info in infos if info.dtype in FLOATS)


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
