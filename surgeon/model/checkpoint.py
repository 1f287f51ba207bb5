"""A model as it lies on disk: its tensors by name, its family, and the sites among them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from surgeon.errors import CheckpointError, UnknownArchitectureError
from surgeon.families import (
    Family,
    Site,
    Stack,
    by_layer,
    family_of,
    infer_family,
    one_stream,
    says_offset,
    sites_from_pattern,
    way_on,
)
from surgeon.families.sites import stream_width
from surgeon.model.pickle_file import PickleFile
from surgeon.model.remote import RemoteModel
from surgeon.model.safetensors_file import FLOATS, SafetensorsFile, TensorInfo

CONFIG = "config.json"
# Training starts a gain at 1, and one that is stored less 1 at 0, and moves neither very far.
_FEW_BELOW_0, _NEAR_1 = 0.05, 0.5

WeightFile: TypeAlias = SafetensorsFile | PickleFile


@dataclass(frozen=True)
class Checkpoint:
    """A model as it lies on disk, or on the Hub for reading alone.

    ``name`` is the model's name for people and reports: the Hub id where it is known. ``config``
    is empty if there is none: then the tensor names tell the family. ``files`` hold the tensors,
    and ``index`` is the name of the index file if they are shards. Nothing but headers is read
    until ``read`` asks for a tensor. ``revision`` is the commit on the Hub, and ``sites_pattern``
    what a person said about the norms of an architecture without a row. ``alone`` says that the
    weight file is all of the model: its folder may be anybody's. ``conversion`` is the pull request
    on the Hub that the safetensors are of, where the default branch has a pickle alone.
    """

    name: str
    directory: Path
    config: Mapping[str, Any]
    files: tuple[WeightFile, ...]
    index: str | None = None
    revision: str | None = None
    sites_pattern: str | None = None
    remote: RemoteModel | None = None
    alone: bool = False
    conversion: str | None = None

    @cached_property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Every tensor by name, in the order of the files."""
        files = self.files if self.remote is None else self.remote.files
        return {name: info for file in files for name, info in file.tensors.items()}

    @cached_property
    def homes(self) -> Mapping[str, WeightFile]:
        """The file on disk that holds each tensor."""
        return {name: file for file in self.files for name in file.tensors}

    def read(self, name: str) -> npt.NDArray[Any]:
        """Read one floating-point tensor in its own dtype."""
        if self.remote is not None:
            return self.remote.homes[name].read(name)
        return self.homes[name].read(name)

    def where(self, name: str) -> str:
        """Say which file of which model a tensor is in, for an error."""
        return self.name if self.remote is not None else str(self.homes[name].path)

    def prefetch(self, names: Iterable[str]) -> None:
        """Fetch tensors of a remote model together, ahead of ``read``; on disk there is no need."""
        if self.remote is not None:
            self.remote.prefetch(names)

    @property
    def parameters_total(self) -> int:
        """The number of floating-point scalars; index buffers do not count."""
        return sum(t.size for t in self.tensors.values() if t.dtype in FLOATS)

    @cached_property
    def family(self) -> Family:
        """The row of the architecture registry that describes this checkpoint.

        With ``sites_pattern`` it is a row of no templates, named after the pattern.
        """
        model_type = self.config.get("model_type")
        if self.sites_pattern is not None:
            known = "unknown" if model_type is None else model_type
            return Family(f"{known} by --sites-pattern", (), (), "drift")
        if not self.config and self.remote is None:
            return infer_family(str(self.files[0].path), self._shapes)
        try:
            return family_of(model_type, self.config)
        except UnknownArchitectureError as error:
            # The error begins with the name of the file.
            told = f"{self._folder}/{error}; {way_on(self._shapes)}"
            raise UnknownArchitectureError(told) from error

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """Every site of every role whose dimensions are those of the first output site.

        Raises:
            CheckpointError: the weights are not those of the family, or lack layers.
        """
        if self.sites_pattern is not None:
            sites = sites_from_pattern(self.sites_pattern, self._shapes)
            if not says_offset(self.sites_pattern):
                self._check_gains(sites)
        else:
            family = self.family
            try:
                sites = family.sites(self.tensors)
            except CheckpointError as error:
                raise CheckpointError(f"{self._folder}: {error}") from error
            sites = within_config(sites, self.config, f"{self._folder}/{CONFIG}")
        return one_stream(sites, self._shapes)

    @property
    def _folder(self) -> str:
        """Where the model is, for an error."""
        return self.name if self.remote is not None else str(self.directory)

    def _check_gains(self, sites: tuple[Site, ...]) -> None:
        """Check that norms which a person named do not seem to store their gain less 1.

        A 0 would not remove a dimension then, but leave it as it is.

        Raises:
            CheckpointError: they seem to.
        """
        gains = [
            s.gain for s in sites if s.kind != "dense" and self.tensors[s.gain].dtype in FLOATS
        ]
        if not gains:
            return
        self.prefetch(gains)
        stored = np.concatenate([self.read(gain).astype(np.float64) for gain in gains])
        below, mean = np.mean(stored < 0), np.mean(stored)
        if below > _FEW_BELOW_0 and mean < _NEAR_1:
            raise CheckpointError(
                f"--sites-pattern: the gains it names have a mean of {mean:.2g} and {below:.0%} of "
                "them lie below 0, where gains lie near 1: the norms may multiply by 1 + what is "
                f"stored, as Gemma's do. If so, say '1+{self.sites_pattern}', otherwise '0+…'"
            )

    @cached_property
    def _shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {name: info.shape for name, info in self.tensors.items()}

    @property
    def hidden_size(self) -> int:
        """How many dimensions the residual stream has."""
        return stream_width(self.sites, self._shapes)

    @property
    def layers(self) -> int:
        """How many layers have an output site."""
        return len(by_layer(self.sites))


_ONE_STACK = (("num_hidden_layers", "n_layer", "n_layers", "num_layers"),)
# Each group goes before the next. T5 counts both stacks by num_layers, unless the decoder's own
# number is there; BART's num_hidden_layers may be that of the encoder.
_KEYS: Mapping[Stack, tuple[tuple[str, ...], ...]] = {
    "": _ONE_STACK,
    "text": _ONE_STACK,
    "vision": _ONE_STACK,
    "encoder": (("encoder_layers", "num_encoder_layers"), ("num_layers",)),
    "decoder": (("decoder_layers", "num_decoder_layers"), ("num_layers",)),
}
_PART: Mapping[Stack, str] = {"": "text_config", "text": "text_config", "vision": "vision_config"}


def within_config(sites: Iterable[Site], config: Mapping[str, Any], label: str) -> tuple[Site, ...]:
    """Keep the sites of the layers that a model of this configuration has.

    Layers of the weights beyond that number are never run: transformers leaves them out too. A
    configuration that names no number, or several, leaves all.

    Args:
        sites: those that the tensor names show.
        config: the configuration.
        label: its path, for errors.

    Raises:
        CheckpointError: the weights have fewer layers than the configuration says.
    """
    found = tuple(sites)
    wanted = {site.stack: _layers(config, site.stack) for site in found}
    for stack, count in wanted.items():
        of_stack = {s.layer for s in found if (s.stack, s.role) == (stack, "output")}
        if count is not None and of_stack and len(of_stack) < count:
            raise CheckpointError(
                f"{label}: says {count}{stack and ' '}{stack} layers, the weights have "
                f"{len(of_stack)}: the checkpoint is incomplete; fetch it again"
            )
    return tuple(site for site in found if _is_run(site.layer, wanted[site.stack]))


def _is_run(layer: int | None, count: int | None) -> bool:
    return layer is None or count is None or layer < count


def _layers(config: Mapping[str, Any], stack: Stack) -> int | None:
    """Return the number of layers of a stack, None where the configuration leaves it open."""
    if config.get("model_type") == "albert":  # the layers of a group share its parameters
        return _agreed(config, ("num_hidden_groups",))
    part = config.get(_PART.get(stack, ""))
    parts = (part, config) if isinstance(part, Mapping) else (config,)
    counts = (_agreed(one, keys) for one in parts for keys in _KEYS[stack])
    return next((count for count in counts if count is not None), None)


def _agreed(config: Mapping[str, Any], keys: Iterable[str]) -> int | None:
    values = [config[key] for key in keys if config.get(key) is not None]
    usable = all(type(value) is int and value > 0 for value in values)  # bool is no count
    return values[0] if usable and len(set(values)) == 1 else None


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
