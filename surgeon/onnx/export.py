"""Model directory → ``onnx/model.onnx``, with every editable vector an initializer of its own.

The vectors are exported as graph inputs and become initializers afterwards: two of equal content
stay two, and an edit to one reaches no other.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch

from surgeon.errors import CheckpointError, ExportError, ParityError, SelectionError
from surgeon.families import (
    Family,
    Role,
    Site,
)
from surgeon.families.infer import whole_match
from surgeon.families.sites import is_expert
from surgeon.model import Checkpoint
from surgeon.model.checkpoint import find_not_finite
from surgeon.onnx.facts import Dtype, OnnxFacts, name_values, strip_traces
from surgeon.onnx.file_graph import FileGraph
from surgeon.onnx.operations import Operation, Use
from surgeon.onnx.parity import (
    Feed,
    Padding,
    Probe,
    check_parity,
    make_probes,
    real_rows,
)
from surgeon.onnx.traced import trace
from surgeon.onnx.weights import read_initializers
from surgeon.progress import Progress
from surgeon.tasks.sizes import longest_text
from surgeon.torch_model.directory import not_applied
from surgeon.torch_model.heads import (
    LEFT_PADDED,
    head_left_out,
    head_missing,
)
from surgeon.torch_model.loading import (
    TorchModel,
    decoder_start_of,
    explained,
    labels_of,
    load_model,
    padding_id_of,
    quiet,
)
from surgeon.torch_model.tokenizer import load_tokenizer, save_tokenizer

MODEL = "model.onnx"
_INLINE_LIMIT = 1_500_000_000  # bytes; protobuf holds 2 GiB, beyond this weights go beside it


def export_model(
    checkpoint: Checkpoint,
    folder: Path,
    progress: Progress,
    *,
    otherwise: str,
    dtype: Dtype = "float32",
) -> OnnxFacts:
    """Export a model to ``folder``/model.onnx and check it.

    The graph takes ``input_ids``, ``attention_mask`` and, where the model has them,
    ``token_type_ids``, int64 of shape (batch, sequence), all dynamic. An encoder-decoder takes
    ``decoder_input_ids`` (batch, target sequence) too, and XLNet ``perm_mask`` (batch, sequence,
    sequence) and ``target_mapping`` (batch, targets, sequence), float32.

    It gives float32 ``logits``: (batch, sequence or targets, vocabulary or labels), of a
    classifier of whole sequences (batch, labels), of ELECTRA's discriminator (batch, sequence).
    To answer questions they are ``start_logits`` and ``end_logits`` (batch, sequence), and
    without a head ``last_hidden_state`` (batch, sequence, hidden).

    Args:
        checkpoint: the opened model directory, with safetensors weights.
        folder: the directory to make for the graph.
        progress: told of each step.
        otherwise: what an error tells the user to do instead.
        dtype: of the weights. The editable vectors are those of the checkpoint rounded to it.

    Raises:
        ExportError: transformers cannot load or torch cannot export the model, the graph
            computes something else, or its vectors are not those of the checkpoint.
    """
    if dtype != "float32":
        otherwise = f"leave out --dtype {dtype}, or {otherwise}"
    progress("loading the model", 0, 0)
    tokenizer = load_tokenizer(checkpoint.directory, otherwise)
    loaded = load_model(checkpoint, otherwise)
    config = loaded.model.config
    limit = getattr(tokenizer, "model_max_length", None)
    max_length = longest_text(checkpoint.config, checkpoint.family, limit)
    left = (config.model_type, loaded.task) in LEFT_PADDED
    padding = Padding(padding_id_of(config, tokenizer), "left" if left else "right")
    start = decoder_start_of(loaded)
    feeds = make_probes(loaded, tokenizer, max_length, padding, start)
    probes = [_probe(loaded, feed, otherwise) for feed in feeds]
    folder.mkdir()
    path = folder / MODEL
    progress("exporting to ONNX", 0, 0)
    model = trace(loaded, max(feeds, key=lambda feed: len(feed["input_ids"])), dtype, otherwise)
    _write(model, loaded, path, dtype)
    progress("checking the export", 0, 0)
    _check_vectors(loaded, path, dtype)
    try:
        parity = check_parity(path, probes, dtype, otherwise)
    except ExportError:
        raise
    except Exception as error:  # a graph that onnxruntime refuses raises its own types
        raise explained("onnxruntime cannot run the exported model", error, otherwise) from error
    return OnnxFacts(
        model=f"{folder.name}/{MODEL}",
        task=loaded.task,
        inputs=loaded.graph_inputs,
        output=loaded.output,
        outputs=loaded.head.outputs,
        opset=int(model.opset_imports[""]),
        max_length=max_length,
        vectors=tuple(sorted(loaded.parameters)),
        tokenizer=save_tokenizer(checkpoint.directory, folder, tokenizer, padding.token)
        if tokenizer
        else None,
        parity=parity,
        labels=labels_of(config, loaded.head),
        decoder_start_id=start,
        padding=padding.side,
        dtype=dtype,
        head_left_out=head_left_out(checkpoint.config, checkpoint.family, loaded.task),
        head_missing=head_missing(checkpoint.config, checkpoint.family, loaded.task),
        not_applied=not_applied(checkpoint.directory, checkpoint.config),
    )


def _probe(loaded: TorchModel, feed: Feed, otherwise: str) -> Probe:
    """Run a batch as a user of transformers would, before anything is done for the export."""
    try:
        with torch.inference_mode(), quiet():
            outputs = loaded.model(**{name: torch.from_numpy(v) for name, v in feed.items()})
    except Exception as error:  # whatever a model's code raises, it does not run on text alone
        if loaded.head.rows == "sequence" and _has_no_padding(loaded.model.config):
            raise ExportError(
                f"{loaded.checkpoint.name}: config.json has no pad_token_id, by which "
                f"{type(loaded.model).__name__} finds the last token of a sequence; write the one "
                "that the model was trained with into it"
            ) from error
        raise explained("the model does not run on tokens alone", error, otherwise) from error
    expected = tuple(outputs[name].numpy() for name in loaded.head.outputs)
    real = real_rows(feed, loaded.head.rows)
    if not all(np.isfinite(output[real]).all() for output in expected):
        found = find_not_finite(loaded.checkpoint)
        broken = found or f"{loaded.checkpoint.name}: its output is not finite"
        raise ExportError(
            f"{broken}, so there is nothing to compare ONNX with; repair the weights, or "
            f"{otherwise}"
        )
    return Probe(feed, expected, real)


def _has_no_padding(config: Any) -> bool:
    return getattr(config.get_text_config(), "pad_token_id", None) is None


def _write(model: ir.Model, loaded: TorchModel, path: Path, dtype: Dtype) -> None:
    vectors = {name: _vector(loaded, name, dtype) for name in loaded.parameters}
    name_values(model, loaded.graph_inputs, vectors, loaded.head.outputs)
    strip_traces(model)
    size = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value)
    # The name that transformers.js and Optimum look for.
    ir.save(model, path, external_data=f"{MODEL}_data" if size > _INLINE_LIMIT else None)


def _check_vectors(loaded: TorchModel, path: Path, dtype: Dtype) -> None:
    """Check, bit for bit, that the two halves hold the same vectors."""
    for name, values in read_initializers(path, loaded.parameters).items():
        stored = _vector(loaded, name, dtype)
        if values.shape != stored.shape or values.tobytes() != stored.tobytes():
            raise ParityError(f"{path.name}: initializer {name} is not the patched tensor")


def _vector(loaded: TorchModel, name: str, dtype: Dtype) -> npt.NDArray[Any]:
    return loaded.checkpoint.read(name).astype(np.dtype(dtype))


_SHOWN = 4
_CALL = re.compile(r"_\d+$")
_LAYER = re.compile(r"(?<!\d)(\d{1,5})(?!\d)")


@dataclass(frozen=True)
class Place:
    """A site, and the operations that read its tensors: several where layers share them."""

    site: Site
    operations: tuple[Operation, ...]


def places_by_name(
    graph: FileGraph, operations: Sequence[Operation], family: Family
) -> tuple[Place, ...]:
    """Find a family's sites by the names of initializers, nodes and modules.

    Raises:
        CheckpointError: the names are not those of the family, or a layer is missing.
    """
    named: dict[str, list[Operation]] = {}
    for operation in operations:
        path = next((p for p in paths_of(graph, operation) if _fits(family, p, operation)), None)
        if path is not None:
            named.setdefault(path, []).append(operation)
    leaves = {
        f"{path}.{leaf}": path
        for path, found in named.items()
        for leaf, use in (("weight", found[0].gain), ("bias", found[0].bias))
        if use is not None
    }
    places = [
        place_of(graph, site, named[leaves[site.gain]]) for site in family.sites(leaves.keys())
    ]
    if not any(place.site.role == "embeddings" for place in places):
        # onnxruntime's fusion of the embeddings with their norm has a name of its own.
        places += [
            Place(site_of(graph, operation, "embeddings", None), (operation,))
            for operation in operations
            if operation.embeds
        ]
    return tuple(places)


def places_by_pattern(
    graph: FileGraph, operations: Sequence[Operation], pattern: str
) -> tuple[Place, ...]:
    """Make output sites of the operations with a name that a regular expression matches whole.

    The names are those of the nodes, the initializers and the modules. The layer is the first
    integer in the name, or else counts through; experts end one together.

    Raises:
        SelectionError: the pattern is no regular expression, or matches none.
    """
    matches = whole_match(pattern)
    named = ((o, next(filter(matches, _names(graph, o)), None)) for o in operations)
    found = [(operation, name) for operation, name in named if name is not None]
    if not found:
        norms = [operation for operation in operations if operation.kind != "dense"] or operations
        shown = " or ".join(repr(_names(graph, norm)[0]) for norm in norms[1 : 1 + _SHOWN])
        raise SelectionError(f"pattern {pattern!r}: matches no node; there is {shown or 'no norm'}")
    numbers = [int(m.group()) if (m := _LAYER.search(name)) else None for _, name in found]
    sites = [
        site_of(graph, operation, "output", layer)
        for layer, (operation, _) in zip(numbers, found, strict=True)
    ]
    ends = [site.layer for site in sites if not site.expert]
    ends += {site.layer for site in sites if site.expert}
    if len(set(ends)) < len(ends) or None in ends:
        sites = [dataclasses.replace(site, layer=layer) for layer, site in enumerate(sites)]
    places = [
        place_of(graph, site, [operation])
        for site, (operation, _) in zip(sites, found, strict=True)
    ]
    return tuple(sorted(places, key=lambda place: place.site.layer or 0))


def paths_of(graph: FileGraph, operation: Operation) -> list[str]:
    """Return the module paths that names give an operation, the most certain first.

    The name of a tensor that others read too says nothing: exporters merge equal ones.
    """
    node = graph.nodes[operation.node]
    gain, bias = (_own_name(graph, use) for use in (operation.gain, operation.bias))
    slashed = [name for name in (node.name, operation.result) if name.startswith("/")]
    modules = [".".join(name.strip("/").split("/")[:-1]) for name in slashed]
    paths = (
        gain.rpartition(".")[0],
        node.scope,
        *modules,
        # torch numbers the calls of a module that several layers share.
        *(_CALL.sub("", module) for module in modules),
        bias.rpartition(".")[0],
    )
    return [path for path in paths if path]


def _own_name(graph: FileGraph, use: Use | None) -> str:
    if use is None:
        return ""
    name = graph.nodes[use[0]].inputs[use[1]]
    return name if len(graph.readers[name]) == 1 else ""


def _names(graph: FileGraph, operation: Operation) -> list[str]:
    node = graph.nodes[operation.node]
    inputs = [graph.nodes[use[0]].inputs[use[1]] for use in (operation.gain, operation.bias) if use]
    return [*inputs, *paths_of(graph, operation), *filter(None, [node.name])]


def _fits(family: Family, path: str, operation: Operation) -> bool:
    return any(
        template.prefixes([f"{path}.weight"])
        for template in family.templates
        if (template.kind == "dense") == (operation.kind == "dense")
    )


def place_of(graph: FileGraph, site: Site, operations: Sequence[Operation]) -> Place:
    """Return a site with the tensors that its operations read."""
    first = operations[0]
    found = {(_tensor(graph, o.gain), _tensor(graph, o.bias), o.axis) for o in operations}
    if len(found) > 1:
        raise CheckpointError(
            f"{len(operations)} norms are named {site.gain.rpartition('.')[0]} and have different "
            "weights; name those that end a layer with --sites-pattern REGEX"
        )
    ((gain, bias, axis),) = found
    assert gain is not None
    # What a graph multiplies by is what it stores: an offset of the family is folded in.
    own = dataclasses.replace(
        site, kind=first.kind, gain=gain, bias=bias, axis=axis, gain_offset=0.0
    )
    return Place(own, tuple(operations))


def site_of(graph: FileGraph, operation: Operation, role: Role, layer: int | None) -> Site:
    """Return the site that an operation is, with the tensors that it reads."""
    gain = _tensor(graph, operation.gain)
    assert gain is not None
    bias, expert = _tensor(graph, operation.bias), operation.kind == "dense" and is_expert(gain)
    return Site(role, operation.kind, layer, gain, bias, operation.axis, expert=expert)


def _tensor(graph: FileGraph, use: Use | None) -> str | None:
    if use is None:
        return None
    stored = graph.tensor_of(graph.nodes[use[0]].inputs[use[1]])
    assert stored is not None
    if stored.obstacle:
        raise CheckpointError(stored.obstacle)
    return stored.info.name
