"""A model as it lies in files: its tensors by name, its configuration, and the sites among them.

The sites follow from its family, which the configuration, the tensor names or a pattern says.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    language_model,
    one_stream,
    says_offset,
    sites_from_pattern,
    suggest_pattern,
)
from surgeon.families.sites import stream_width
from surgeon.model.tensors import FLOATS, TensorFile, TensorInfo, numpy_dtype, quantized

if TYPE_CHECKING:
    from surgeon.model.ranges import Meter

CONFIG = "config.json"
# After the name of a weight, and the power that its values are times: DeepSeek's, vLLM's, gpt-oss';
# NVFP4's second one for the whole, by which ModelOpt multiplies and compressed-tensors divides.
_SCALES = {"_scale_inv": 1, "_scale": 1, "_scales": 1, "_scale_2": 1, "_global_scale": -1}
# The bytes, of two FP4 weights each, that a scale of MXFP4 and one of NVFP4 is for.
_FP4_BLOCKS = {"U8": 16, "F8_E8M0": 16, "F8_E4M3": 8}


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
        parameters_total: the number of scalars that are weights; buffers of indices do not count.
        known: the architecture (None: by the configuration, the names or the pattern).
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
    parameters_total: int
    known: Architecture | None = None
    index: str | None = None
    revision: str | None = None
    sites_pattern: str | None = None
    alone: bool = False
    conversion: str | None = None
    meter: Meter | None = None

    def __repr__(self) -> str:
        return f"<Checkpoint {self.name}: {self.parameters_total:,} parameters>"

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

    @cached_property
    def _codes(self) -> Mapping[str, tuple[int, ...]]:
        return codes_in_rows(self.tensors)

    @cached_property
    def unpacked(self) -> Mapping[str, tuple[int, ...]]:
        """The shapes, those of codes in rows as these rows.

        What else is packed is one column: nothing says which of its axes is which.
        """
        packed = {n: i for n, i in self.tensors.items() if i.dtype not in FLOATS}
        columns = {name: (info.size, 1) for name, info in packed.items() if len(info.shape) > 1}
        return {**self.shapes, **columns, **self._codes}

    @property
    def source(self) -> Path:
        """What holds the model: its directory, or the weight file that is all of it."""
        return self.files[0].path if self.alone else self.directory

    def read(self, name: str) -> npt.NDArray[Any]:
        """Read one tensor of floats, or of codes in rows, in its own dtype."""
        info, file = self.tensors[name], self.homes[name]
        if info.dtype not in FLOATS and name not in self._codes:
            raise quantized(file.path, info)
        return file.read(name)

    def scales_of(self, name: str) -> list[str]:
        """Return the names of the scales that the stored values of a weight count by."""
        return [*_powers_of_scales(name, self.tensors)]

    def read_scales(self, name: str) -> npt.NDArray[np.float64] | None:
        """Read the product of a weight's scales, by its axes; None if there are none.

        Raises:
            CheckpointError: they do not fit the weight, or are not finite.
        """
        shape, product = self.unpacked[name], None
        for scale, power in _powers_of_scales(name, self.tensors).items():
            info = self.tensors[scale]
            counts = (*info.shape, *(1 for _ in shape))[: len(shape)]
            fits = all(0 < count <= size for count, size in zip(counts, shape, strict=True))
            if not fits or info.size != (math.prod(counts) if product is None else 1):
                raise CheckpointError(
                    f"{self.where(name)}: {scale} has shape {list(info.shape)}, which does not fit "
                    f"{name} of {list(shape)}; fetch the model again"
                )
            stored = self.homes[scale].read(scale)
            if info.dtype == "U8":
                stored = stored.view(numpy_dtype("F8_E8M0"))
            with np.errstate(all="ignore"):
                scales = stored.astype(np.float64).reshape(counts) ** power
            if not np.isfinite(scales).all():
                raise CheckpointError(
                    f"{self.where(scale)}: tensor {scale} holds values that are not finite"
                )
            product = scales if product is None else product * scales
        return product

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
        found = self.known or _find_architecture(self)
        return Architecture(found.family, one_stream(found.sites, self.unpacked))

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
        return stream_width(self.sites, self.unpacked)

    @property
    def can_run(self) -> bool:
        """Whether a method may run it: a model of plain weights, with its configuration."""
        whole = bool(self.config) and not self.alone
        return whole and not self.config.get("quantization_config")

    @property
    def layers(self) -> int:
        """How many layers have an output site."""
        return len(by_layer(self.sites))


def codes_in_rows(tensors: Mapping[str, TensorInfo]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of weights in codes, each row of its own, of which 0 is 0 by any scale.

    These are FP4 (two weights in each U8; blocks of them are end to end here) and int8.
    """
    packed = (info for info in tensors.values() if info.dtype in ("I8", "U8"))
    return {info.name: rows for info in packed if len(rows := _rows_of(info, tensors)) > 1}


def _rows_of(codes: TensorInfo, tensors: Mapping[str, TensorInfo]) -> tuple[int, ...]:
    scales = next(map(tensors.get, _powers_of_scales(codes.name, tensors)), None)
    if scales is None or f"{_unpacked_name(codes.name)}_zero_point" in tensors:
        return ()
    if codes.dtype == "I8":
        return codes.shape if scales.dtype in FLOATS else ()
    size = _FP4_BLOCKS.get(scales.dtype, 0)
    rows = (*scales.shape[:-1], size * sum(scales.shape[-1:]))
    return rows if codes.shape in (rows, (*scales.shape, size)) else ()


def _powers_of_scales(name: str, tensors: Mapping[str, TensorInfo]) -> dict[str, int]:
    """Return the names of the scales that a weight's stored values count by, and their powers."""
    whole = _unpacked_name(name)
    return {whole + end: power for end, power in _SCALES.items() if whole + end in tensors}


def _unpacked_name(name: str) -> str:
    return name.removesuffix("_packed").removesuffix("_blocks")


def count_weights(files: Iterable[TensorFile]) -> int:
    """Return the number of floating-point scalars in files, and of weights in codes."""
    infos = {name: info for file in files for name, info in file.tensors.items()}
    codes = codes_in_rows(infos)
    floats = sum(info.size for info in infos.values() if info.dtype in FLOATS)
    return floats + sum(infos[name].size * (1 + (infos[name].dtype == "U8")) for name in codes)


def find_not_finite(checkpoint: Checkpoint) -> str:
    """Name the first tensor with a NaN or an infinity, its file and how many; "" if none has.

    Reads all weights, one tensor at a time.
    """
    for name, info in checkpoint.tensors.items():
        if info.dtype not in FLOATS:
            continue
        if count := info.size - np.count_nonzero(np.isfinite(checkpoint.read(name))):
            where = checkpoint.where(name)
            return f"{where}: {name} holds {count} of {info.size} values that are not finite"
    return ""


# Training starts a gain at 1, and one that is stored less 1 at 0, and moves neither very far.
_FEW_BELOW_0, _NEAR_1 = 0.05, 0.5


def _find_architecture(checkpoint: Checkpoint) -> Architecture:
    if checkpoint.sites_pattern is not None:
        return _by_pattern(checkpoint, checkpoint.sites_pattern)
    folder = checkpoint.directory
    family = _family(checkpoint)
    try:
        sites = family.sites(checkpoint.tensors)
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from error
    return Architecture(family, within_config(sites, checkpoint.config, f"{folder}/{CONFIG}"))


def _family(checkpoint: Checkpoint) -> Family:
    if not checkpoint.config:
        return infer_family(str(checkpoint.files[0].path), checkpoint.unpacked)
    try:
        return family_of(checkpoint.config.get("model_type"), checkpoint.config)
    except UnknownArchitectureError as error:
        # The error begins with the name of the file.
        message = f"{checkpoint.directory}/{error}; {suggest_pattern(checkpoint.unpacked)}"
        raise UnknownArchitectureError(message) from error


def _by_pattern(checkpoint: Checkpoint, pattern: str) -> Architecture:
    sites = sites_from_pattern(pattern, checkpoint.unpacked)
    if not says_offset(pattern):
        _check_gains(checkpoint, sites)
    model_type = checkpoint.config.get("model_type") or "unknown"
    return Architecture(Family(f"{model_type} by --sites-pattern", (), (), "drift"), sites)


def _check_gains(checkpoint: Checkpoint, sites: Iterable[Site]) -> None:
    """Check that norms which a person named do not seem to store their gain less 1.

    A 0 would not remove a dimension then, but leave it as it is.
    """
    norms = (site.gain for site in sites if site.kind != "dense")
    gains = [gain for gain in norms if checkpoint.tensors[gain].dtype in FLOATS]
    if not gains:
        return
    checkpoint.prefetch(gains)
    stored = np.concatenate([checkpoint.read(gain).astype(np.float64) for gain in gains])
    below, mean = np.mean(stored < 0), np.mean(stored)
    if below > _FEW_BELOW_0 and mean < _NEAR_1:
        raise CheckpointError(
            f"`sites_pattern`: the gains it names have a mean of {mean:.2g} and {below:.0%} of "
            "them lie below 0, where gains lie near 1: the norms may multiply by 1 + what is "
            f"stored, as Gemma's do. If so, say '1+{checkpoint.sites_pattern}', otherwise '0+…'"
        )


_ONE_STACK = (("num_hidden_layers", "n_layer", "n_layers", "num_layers"),)
# Each group goes before the next. T5 counts both stacks by num_layers, unless the decoder's own
# number is there; BART's num_hidden_layers may be that of the encoder.
_KEYS: Mapping[Stack, tuple[tuple[str, ...], ...]] = {
    "": _ONE_STACK,
    "text": _ONE_STACK,
    "vision": _ONE_STACK,
    **{
        of: ((f"{of}_layers", f"num_{of}_layers", f"{of}_num_hidden_layers"), ("num_layers",))
        for of in ("encoder", "decoder")
    },
}
_PART: Mapping[Stack, str] = {
    "": "encoder_config",  # Parakeet
    "text": "text_config",
    "vision": "vision_config",
    "encoder": "encoder",
    "decoder": "decoder",
}


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
    # A final norm has no layer, and is always run.
    return tuple(s for s in found if (s.layer or 0) < (wanted[s.stack] or math.inf))


def _layers(config: Mapping[str, Any], stack: Stack) -> int | None:
    """Return the number of layers of a stack, None where the configuration leaves it open."""
    if config.get("model_type") == "albert":  # the layers of a group share its parameters
        return _agreed(config, ("num_hidden_groups",))
    part = config.get(_PART[stack])
    part = part if isinstance(part, Mapping) else config
    counts = (
        _agreed(one, keys)
        for one in (language_model(part), part, config)
        for keys in (_KEYS[stack] if one is config else _ONE_STACK)
    )
    return next((count for count in counts if count is not None), None)


def _agreed(config: Mapping[str, Any], keys: Iterable[str]) -> int | None:
    values = [config[key] for key in keys if config.get(key) is not None]
    usable = all(type(value) is int and value > 0 for value in values)  # a bool is not a count
    return values[0] if usable and len(set(values)) == 1 else None
