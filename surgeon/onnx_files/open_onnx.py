"""An existing ONNX file, opened to be ranked and edited as a checkpoint is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from surgeon.errors import CheckpointError, SelectionError
from surgeon.families import Family, by_layer, known_family
from surgeon.families.sites import in_order, is_expert
from surgeon.model import Checkpoint
from surgeon.model.checkpoint import CONFIG, Architecture
from surgeon.model.files import read_object
from surgeon.model.tensors import FLOATS
from surgeon.onnx.file_graph import QUANTIZED, FileGraph, tensor_files
from surgeon.onnx.read_graph import read_file_graph
from surgeon.onnx_files.graph_sites import (
    GraphSite,
    sites_by_name,
    sites_by_pattern,
    sites_by_structure,
)
from surgeon.onnx_files.operations import NORMS, find_operations

_LAYER_COUNTS = (
    "num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_decoder_layers",
    "encoder_layers", "decoder_layers",
)  # fmt: skip
_WITHOUT_CACHE = ("decoder_model.onnx", "model.onnx")
# Quantized weights are small integers, the last two types of 4 bits; larger ones are indices.
_WEIGHTS = (*FLOATS, "I8", "U8", "type 21", "type 22")


@dataclass(frozen=True, eq=False)
class OnnxModel:
    """An ONNX file as a checkpoint whose tensors are the initializers, and the graph in it.

    The directory of the checkpoint is the one with ``config.json``, if there is one.
    ``graph_sites`` are the sites with their operations, and ``inferred`` says how they were found.
    """

    checkpoint: Checkpoint
    graph: FileGraph = field(repr=False)
    graph_sites: tuple[GraphSite, ...] = field(repr=False)
    inferred: str

    @property
    def file(self) -> str:
        """The path of the ONNX file below the checkpoint's directory."""
        return self.graph.path.relative_to(self.checkpoint.directory).as_posix()


def open_onnx(path: str | Path, sites_pattern: str | None = None) -> OnnxModel:
    """Open an ONNX file, and find which of its norms ends each layer.

    Args:
        path: the file; its data files and ``config.json`` are looked for beside it, and the latter
            in the folder above too, as repositories with a folder ``onnx`` have it.
        sites_pattern: a regular expression for the names of the nodes or initializers of the
            operations that end each layer, where that cannot be told.

    Raises:
        CheckpointError: it cannot be read, or it cannot be told which norm ends a layer.
        SelectionError: the pattern matches nothing.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    root, whole = path.parent, Path(os.path.abspath(path))  # noqa: PTH100  (links stay)
    above = whole.parent.parent
    if (above / CONFIG).is_file() and not (root / CONFIG).is_file():
        # The folder that one stands in has no name in the path.
        path, root = (whole, above) if root.name in ("", "..") else (path, root.parent)
    config = read_object(root / CONFIG) or {}
    graph = read_file_graph(path, root)
    try:
        found, architecture, inferred = _find(graph, config, sites_pattern)
    except (SelectionError, CheckpointError) as error:
        quantized = _quantized(graph) if isinstance(error, CheckpointError) else ""
        hint = "" if config or sites_pattern else f", or put the model's own {CONFIG} beside it"
        says = _out_of_reach(graph) or f"{quantized or error}{hint}"
        raise type(error)(f"{path}: {says}") from error
    if sites_pattern is None:
        _check_count(path, found, config)
    # A row of no templates: the sites were found in the graph.
    family = Family(architecture, (), (), "drift")
    checkpoint = Checkpoint(
        name=root.resolve().name if config else path.stem,
        directory=root,
        config=config,
        files=tensor_files(graph),
        known=Architecture(family, in_order(one.site for one in found)),
        parameters_total=sum(
            s.info.size for s in graph.tensors.values() if s.info.dtype in _WEIGHTS
        ),
        sites_pattern=sites_pattern,
        alone=True,
    )
    return OnnxModel(checkpoint, graph, found, inferred)


def _find(
    graph: FileGraph, config: Mapping[str, Any], pattern: str | None
) -> tuple[tuple[GraphSite, ...], str, str]:
    """Return the sites, the architecture's name, and how they were found."""
    operations = find_operations(graph)
    model_type = config.get("model_type")
    if pattern is not None:
        found = sites_by_pattern(graph, operations, pattern)
        return found, f"{model_type or 'ONNX'} by --sites-pattern", "by --sites-pattern"
    family = known_family(config)
    if family is None:
        return sites_by_structure(graph, operations), "post-norm", "by the graph's structure"
    dense = any(template.kind == "dense" for template in family.templates)
    joined = (n for n, s in graph.tensors.items() if is_expert(n) and len(s.info.shape) > 2)
    if dense and (name := next(joined, None)):
        raise CheckpointError(
            f"the weights of all experts of a layer are in one tensor, {name}, which surgeon edits "
            "in a checkpoint alone; patch that, and export it"
        )
    try:
        found = sites_by_name(graph, operations, family)
        inferred = f"by names of {family.name}"
    except CheckpointError as error:
        if dense:
            found_out, _, _ = str(error).partition(": ")  # what follows is about a config.json
            raise CheckpointError(
                f"{found_out}; the layers of {family.name} end in a dense layer, which names alone "
                "tell: patch the file as torch.onnx.export wrote it (optimizers drop names), or "
                "use `sites_pattern` REGEX"
            ) from error
        found = sites_by_structure(graph, operations)
        inferred = "by the graph's structure"
    return found, family.name, inferred


def _out_of_reach(graph: FileGraph) -> str:
    """Say that the layers are in a subgraph or function, if they seem to be, and what to give.

    Optimum's ``decoder_model_merged.onnx`` has a decoder with its cache in one branch of an If, and
    one without in the other.
    """
    if NORMS.isdisjoint(graph.inner):
        return ""
    whole = next((n for n in graph.nodes if len(n.captured) > len(graph.nodes)), None)
    if whole is None:
        return (
            "its norms are in functions of the model, where surgeon edits none; inline them with "
            "onnx.inliner.inline_local_functions, and save the model"
            if NORMS.isdisjoint(node.operation for node in graph.nodes)
            else ""
        )
    beside = {file.name for file in graph.path.parent.glob("*.onnx")} - {graph.path.name}
    other = next((name for name in _WITHOUT_CACHE if name in beside), None)
    remedy = f"give {other} beside it" if other else "export the model without its cache"
    return (
        f"its layers are in the branches of the {whole.operation} node {whole.name!r}, where "
        f"surgeon edits none; {remedy}"
    )


def _quantized(graph: FileGraph) -> str:
    """Say that what ends a layer may be quantized, if anything is."""
    found = [node.operation for node in graph.nodes if QUANTIZED.search(node.operation)]
    if not found:
        return ""
    return (
        f"no float weight is known to end its layers, and {len(found)} of its nodes, such as "
        f"{found[-1]}, read quantized ones; patch the float file that it was made of, and quantize "
        "the result"
    )


def _check_count(path: Path, found: tuple[GraphSite, ...], config: Mapping[str, Any]) -> None:
    """Check that no layer was missed: as many in each stack as the configuration says."""
    expected = {config[key] for key in _LAYER_COUNTS if isinstance(config.get(key), int)}
    times = {one.site: len(one.operations) for one in found}
    runs: dict[str, int] = {}
    for site, *_ in by_layer(times):
        runs[site.stack] = runs.get(site.stack, 0) + times[site]  # one that is shared runs often
    for count in runs.values():
        if expected and count not in expected:
            says = " or ".join(map(str, expected))
            raise CheckpointError(
                f"{path}: {count} layers found and config.json says {says}; name the operations "
                "that end each one with `sites_pattern` REGEX"
            )
