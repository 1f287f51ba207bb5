"""Checkpoint → its ONNX half: a graph, kept or exported, and the weights that it refers to."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Sequence
from pathlib import Path

import onnx

from surgeon.errors import ExportError, suggesting
from surgeon.model import Checkpoint
from surgeon.model.checkpoint import find_not_finite
from surgeon.onnx.cache import Graph, find_graph, graph_key, keep_graph
from surgeon.onnx.facts import OnnxFacts, OnnxOptions
from surgeon.onnx.view import DATA, MODEL, Place, weights_of, write_standalone, write_view
from surgeon.progress import Progress
from surgeon.torch_model import memory_left
from surgeon.torch_model.directory import not_applied

_COPIES, _FLOAT32 = 3, 4  # of the weights at once, and bytes of a number


def export_model(
    checkpoint: Checkpoint,
    folder: Path,
    progress: Progress,
    *,
    otherwise: str,
    place: Place,
    options: OnnxOptions,
) -> OnnxFacts:
    """Write ``folder``/model.onnx and its weights; a graph that is kept needs no export.

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
        progress: called at each step.
        otherwise: what the user can do instead, for errors.
        place: puts the content of a weight file beside the graph.
        options: how the half is made.

    Raises:
        ExportError: transformers cannot load or torch cannot export the model, the graph
            computes something else, or a tensor that a patch edits is not in it.
    """
    if options.dtype != "float32":
        otherwise = f"leave out `dtype` {options.dtype}, or {otherwise}"
    with suggesting(otherwise):
        folder.mkdir()
        key = graph_key(checkpoint, options.dtype)
        graph = None if options.fresh else find_graph(key)
        if graph is not None and _fits(graph, checkpoint, options):
            if graph.tokenizer:
                (folder / "tokenizer.json").write_bytes(graph.tokenizer)
            facts = graph.facts
            moved = _write(graph, checkpoint, folder, place, options)
        else:
            facts, moved = _make(checkpoint, folder, key, place, options, progress)
    return dataclasses.replace(
        facts,
        vectors=_vectors(checkpoint),
        moved=moved,
        not_applied=not_applied(checkpoint.directory, checkpoint.config),
    )


def _vectors(checkpoint: Checkpoint) -> tuple[str, ...]:
    found = {name for site in checkpoint.sites for name in (site.gain, site.bias) if name}
    return tuple(sorted(found))


def _fits(graph: Graph, checkpoint: Checkpoint, options: OnnxOptions) -> bool:
    """Whether a graph can be used: what is not compared this time was, and would be right here."""
    if options.parity and graph.facts.parity is None and _fits_in_memory(checkpoint):
        return False
    if any(not _equal(checkpoint, names) for names in graph.ties):
        return False  # they are loaded otherwise, or not at all, which the export says
    return not find_not_finite(checkpoint)


def _equal(checkpoint: Checkpoint, names: Sequence[str]) -> bool:
    first, *others = (b"".join(checkpoint.homes[name].pieces(name)) for name in names)
    return all(other == first for other in others)


def _make(
    checkpoint: Checkpoint,
    folder: Path,
    key: str,
    place: Place,
    options: OnnxOptions,
    progress: Progress,
) -> tuple[OnnxFacts, tuple[str, ...]]:
    """Export, compare and keep a graph."""
    progress("loading PyTorch", 0, 0)
    from surgeon.onnx.export import make_graph  # brings torch and transformers
    from surgeon.onnx.parity import check_parity

    compare = options.parity and _fits_in_memory(checkpoint)
    graph, probes = make_graph(checkpoint, folder, options.dtype, progress, compare=compare)
    moved = _write(graph, checkpoint, folder, place, options)
    parity = None
    if compare:
        progress("checking the export", 0, 0)
        parity = dataclasses.replace(
            check_parity(folder / MODEL, probes, options.dtype),
            weights=_hashes(folder),
            measured=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        )
    facts = dataclasses.replace(graph.facts, parity=parity, graph_key=key if graph.general else "")
    if graph.general:
        keep_graph(key, dataclasses.replace(graph, facts=facts, name=checkpoint.name))
    return facts, moved


def _fits_in_memory(checkpoint: Checkpoint) -> bool:
    """Whether the weights fit in memory in float32, once for PyTorch and twice for onnxruntime."""
    return _COPIES * _FLOAT32 * checkpoint.parameters_total < memory_left()


def _hashes(folder: Path) -> tuple[str, ...]:
    from blake3 import blake3

    files = sorted(folder.glob(f"{DATA}*")) or [folder / MODEL]
    return tuple(blake3(max_threads=blake3.AUTO).update_mmap(path).hexdigest() for path in files)


def _write(
    graph: Graph, checkpoint: Checkpoint, folder: Path, place: Place, options: OnnxOptions
) -> tuple[str, ...]:
    model = onnx.load_model_from_string(graph.model)
    vectors = _vectors(checkpoint)
    held = {weight.name: weight.data_type for weight in weights_of(model)}
    if missing := [name for name in vectors if name not in held]:
        raise ExportError(
            f"{checkpoint.name}: transformers does not load {missing[0]} as it is stored"
        )
    # An operator set of the exporter's converts no float8, which has the numbers from here on.
    as_stored = all(dtype < onnx.TensorProto.FLOAT8E4M3FN for dtype in held.values())
    if as_stored and not options.standalone and options.dtype == "float32":
        return write_view(model, checkpoint, folder, place)
    write_standalone(model, checkpoint, folder, vectors)
    return ()
