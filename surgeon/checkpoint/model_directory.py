"""MODEL → files: a model directory, or a weight file, as it lies on disk."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy.typing as npt

from surgeon.architectures import Family, Site, family_of
from surgeon.checkpoint.dtypes import FLOATS
from surgeon.checkpoint.pickle_file import PickleFile
from surgeon.checkpoint.safetensors_file import SafetensorsFile, TensorInfo, open_safetensors
from surgeon.checkpoint.weight_files import WeightFiles, find_weights
from surgeon.errors import CheckpointError

WeightFile: TypeAlias = SafetensorsFile | PickleFile


@dataclass(frozen=True)
class Checkpoint:
    """A model directory as it lies on disk.

    ``name`` is the model's name for people and reports, ``files`` hold its tensors, and ``index``
    is the name of the index file if they are shards. Nothing but headers is read until ``read``
    asks for a tensor.
    """

    name: str
    directory: Path
    config: Mapping[str, Any]
    files: tuple[WeightFile, ...]
    index: str | None = None

    @cached_property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Every tensor by name, in the order of the files."""
        return {name: info for file in self.files for name, info in file.tensors.items()}

    @cached_property
    def homes(self) -> Mapping[str, WeightFile]:
        """The file that holds each tensor."""
        return {name: file for file in self.files for name in file.tensors}

    def read(self, name: str) -> npt.NDArray[Any]:
        """Read one floating-point tensor in its own dtype."""
        return self.homes[name].read(name)

    @property
    def parameters_total(self) -> int:
        """The number of floating-point scalars; index buffers do not count."""
        return sum(t.size for t in self.tensors.values() if t.dtype in FLOATS)

    @cached_property
    def family(self) -> Family:
        """The row of the architecture registry that describes this checkpoint."""
        return family_of(self.config.get("model_type"))

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """Every site of every role, with the shapes of its vectors checked."""
        sites = self.family.sites(self.tensors)
        first = sites[0]
        hidden = self.tensors[first.gain].shape[first.axis : first.axis + 1]
        return tuple(site for site in sites if self._writes_to(site, hidden))

    def _writes_to(self, site: Site, hidden: tuple[int, ...]) -> bool:
        """Whether a site's dimensions are those of the residual stream; its shapes are checked."""
        shape = self.tensors[site.gain].shape
        bias_shape = self.tensors[site.bias].shape if site.bias else shape[site.axis :][:1]
        rank = 1 if site.kind == "layernorm" else 2
        if len(shape) == rank and bias_shape == (shape[site.axis],):
            if (shape[site.axis],) == hidden:
                return True
            if site.role == "embeddings":  # ELECTRA may embed into a space of its own
                return False
        raise CheckpointError(
            f"{self.homes[site.gain].path}: {site.gain} has shape {list(shape)} and its bias "
            f"{list(bias_shape)}, which is no {site.kind} over {list(hidden)} dimensions"
        )

    @property
    def hidden_size(self) -> int:
        """How many dimensions the residual stream has."""
        return self.tensors[self.sites[0].gain].shape[self.sites[0].axis]

    @property
    def layers(self) -> int:
        """How many layers have an output site."""
        return sum(site.role == "output" for site in self.sites)


def open_checkpoint(model: str | Path, *, name: str | None = None) -> Checkpoint:
    """Open a model directory or a ``.safetensors`` file with its ``config.json`` beside it.

    Args:
        model: the path.
        name: what reports and the model card call the model (None: the directory's name).

    Raises:
        CheckpointError: there is no such path, no weights in it, or no readable configuration.
    """
    path = Path(model)
    if path.is_dir():
        weights = find_weights(path)
    elif path.is_file() and path.suffix == ".safetensors":
        weights, path = WeightFiles((open_safetensors(path),), None), path.parent
    elif path.is_file():
        raise CheckpointError(
            f"{path}: not a .safetensors file; give it or the model directory it is in"
        )
    else:
        raise CheckpointError(
            f"{model}: no such file or directory; download the model first and give its directory"
        )
    # Of the path as given: a link has the better name than what it leads to.
    shown = name or Path(os.path.abspath(path)).name  # noqa: PTH100  (resolve follows links)
    return Checkpoint(shown, path, _read_config(path), weights.files, weights.index)


def _read_config(directory: Path) -> Mapping[str, Any]:
    path = directory / "config.json"
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such file; the architecture is read from it, so put it beside the weights"
        )
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: not a JSON object")
    return config
