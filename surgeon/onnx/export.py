"""Model directory → a graph whose weights are the checkpoint's tensors, by name, and no numbers.

torch exports the model with tensors that have shapes and no storage, so that no pass can fold,
merge or transpose one: what the graph says of the weights, it says of any of that architecture.
"""

from __future__ import annotations

import contextlib
import io
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from surgeon.errors import ExportError
from surgeon.model import Checkpoint
from surgeon.onnx.cache import Graph
from surgeon.onnx.experts import MATRICES, References, expand_experts, fold_experts
from surgeon.onnx.facts import Dtype, OnnxFacts
from surgeon.onnx.parity import Probe, make_feeds, run_probe
from surgeon.onnx.stand_ins import stand_ins
from surgeon.onnx.traced_once import traced_once
from surgeon.onnx.view import MODEL
from surgeon.progress import Progress
from surgeon.tasks.configuration import longest_text
from surgeon.tasks.examples import Batch, Side
from surgeon.torch_model.heads import AXES, LEFT_PADDED, unscored_head
from surgeon.torch_model.loading import (
    TorchModel,
    decoder_start_of,
    export_error,
    load_model,
    load_without_weights,
    padding_id_of,
    quiet,
)
from surgeon.torch_model.tokenizer import load_tokenizer, save_tokenizer

_LABELLED = ("classification", "token-classification")

# XLNet subtracts its mask from 1.0, which the exporter does not take of an integer.
_FLOAT_MASK = ("xlnet",)


def make_graph(
    checkpoint: Checkpoint, folder: Path, dtype: Dtype, progress: Progress, *, compare: bool
) -> tuple[Graph, list[Probe]]:
    """Make the graph of a checkpoint, and what PyTorch gives for some batches to compare it with.

    Without a comparison no weight is loaded.

    Args:
        checkpoint: the opened model directory, with safetensors weights.
        folder: that of the graph; a tokenizer goes there that has no file of its own to read.
        dtype: in which the graph computes.
        progress: called at each step.
        compare: whether to load the weights, and run the batches.

    Raises:
        ExportError: transformers cannot load or torch cannot export the model.
    """
    progress("loading the model", 0, 0)
    tokenizer = load_tokenizer(checkpoint.directory)
    loaded = load_model(checkpoint) if compare else load_without_weights(checkpoint)
    config = loaded.model.config
    limit = getattr(tokenizer, "model_max_length", None)
    max_length = longest_text(checkpoint.config, checkpoint.family, limit)
    pad = padding_id_of(config, tokenizer)
    left_padded = (config.model_type, loaded.task) in LEFT_PADDED
    side: Side = "left" if left_padded else "right"
    feeds = make_feeds(loaded, tokenizer, max_length, pad, side)
    probes = [run_probe(loaded, feed) for feed in feeds] if compare else []
    progress("exporting to ONNX", 0, 0)
    example = max(feeds, key=lambda feed: len(feed["input_ids"]))
    ties = _ties(loaded)
    model = _trace(loaded, example, dtype, max_length)
    left_out, missing = unscored_head(checkpoint.config, checkpoint.family, loaded.task)
    facts = OnnxFacts(
        model=f"{folder.name}/{MODEL}",
        task=loaded.task,
        inputs=loaded.graph_inputs,
        output=loaded.output,
        outputs=loaded.head.outputs,
        opset=int(model.opset_imports[""]),
        max_length=max_length,
        vectors=(),
        tokenizer=save_tokenizer(checkpoint.directory, folder, tokenizer, pad)
        if tokenizer
        else None,
        parity=None,
        labels=tuple(str(label) for _, label in sorted(config.id2label.items()))
        if loaded.task in _LABELLED
        else (),
        decoder_start_id=decoder_start_of(loaded),
        padding=side,
        dtype=dtype,
        head_left_out=left_out,
        head_missing=missing,
    )
    content = ir.serde.serialize_model(model).SerializeToString()
    own = folder / "tokenizer.json"
    made = own.read_bytes() if own.is_file() else b""
    # Experts are put together of what is stored; of other merged tensors the graph has the values.
    merged = (name for name, source in loaded.sources.items() if not source)
    general = all(name.rpartition(".")[2] in MATRICES for name in merged)
    return Graph(content, facts, ties, made, general=general), probes


def _ties(loaded: TorchModel) -> tuple[tuple[str, ...], ...]:
    """Return the stored tensors of which the model makes one: they have to be equal."""
    found: dict[Any, dict[str, None]] = defaultdict(dict)
    for name, parameter in loaded.model.named_parameters(remove_duplicate=False):
        if source := loaded.sources.get(name):
            found[parameter][source] = None
    return tuple(tuple(names) for names in found.values() if len(names) > 1)


def _trace(loaded: TorchModel, example: Batch, dtype: Dtype, max_length: int) -> ir.Model:
    """Return the model as a graph that computes in ``dtype``, its weights external tensors.

    Each has the name, the shape and the dtype of the checkpoint's, and no place yet. What the class
    of the model computes itself, such as sinusoids, is in the graph.

    Args:
        loaded: the model, which has no weights afterwards and does not run any more.
        example: at least two sequences of at least two tokens.
        dtype: in which the graph computes.
        max_length: the most tokens of a sequence.

    Raises:
        ExportError: torch cannot export it, or not for all lengths.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv())
    sources = _take_storage(loaded, mode, getattr(torch, dtype))
    axes = {name: dict(enumerate(AXES[name])) for name in loaded.graph_inputs}
    with mode:
        tokens = {n: torch.empty_like(torch.from_numpy(example[n])) for n in loaded.graph_inputs}
    try:
        # torch prints the half-made graph of what it cannot export to standard error.
        with (
            quiet(),
            contextlib.redirect_stderr(io.StringIO()),
            stand_ins(loaded.model),
            traced_once(max_length) as untraced,
        ):
            expert = fold_experts(loaded, mode)
            program = torch.onnx.export(
                _Traced(loaded).eval(),
                (),
                kwargs={"tokens": tokens},
                dynamic_shapes={"tokens": axes},
                dynamo=True,
                optimize=False,
                verbose=False,
            )
            assert program is not None
            weights = _set_aside_weights(program.model.graph, loaded, sources)
            program.optimize()
    except ExportError:
        raise
    except Exception as error:
        raise export_error("torch cannot export the model", error) from error
    if untraced:
        raise ExportError(
            f"{loaded.checkpoint.name}: what torch traces of {type(loaded.model).__name__} does "
            f"not hold for {untraced[0]} tokens, and it takes {max_length}"
        )
    model: ir.Model = program.model
    references = References(model.graph, loaded.checkpoint)
    for value, name in weights.items():
        model.graph.inputs.remove(value)
        if value.uses():
            ir.convenience.replace_all_uses_with(value, references.of([name], value.dtype))
    if expert is not None:
        expand_experts(model, loaded, expert, references)
    for values, names in (
        (model.graph.inputs, loaded.graph_inputs),
        (model.graph.outputs, loaded.head.outputs),
    ):
        for value, name in zip(values, names, strict=True):
            value.name = name
    _strip_traces(model)
    return model


class _Traced(torch.nn.Module):  # type: ignore[misc]  # torch is untyped to mypy here
    def __init__(self, loaded: TorchModel) -> None:
        super().__init__()
        self.model = loaded.model
        self.outputs = loaded.head.outputs
        self.floats = ["perm_mask", "target_mapping"]
        if loaded.model.config.model_type in _FLOAT_MASK:
            self.floats.append("attention_mask")

    def forward(self, tokens: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        dtype = self.model.dtype
        taken = {n: v.to(dtype) if n in self.floats else v for n, v in tokens.items()}
        outputs = self.model(**taken)
        return tuple(outputs[name].to(torch.float32) for name in self.outputs)


def _take_storage(loaded: TorchModel, mode: FakeTensorMode, dtype: torch.dtype) -> dict[int, str]:
    """Have a model in ``dtype``, without storage for the parameters that the checkpoint has.

    Returns the stored tensor of each by the ``id`` of the parameter: tied ones stay one.
    """
    made, sources = {}, {}
    for name, old in loaded.model.named_parameters(remove_duplicate=False):
        source = loaded.sources.get(name)
        merged = source == "" and name.rpartition(".")[2] in MATRICES
        if old not in made and (source or merged):
            with mode:
                empty = torch.empty(old.shape, dtype=dtype)
            made[old] = torch.nn.Parameter(empty, requires_grad=False)
            sources[id(made[old])] = source or ""
    for module in loaded.model.modules():
        for tensors in (module._parameters, module._buffers):  # noqa: SLF001  # as nn.Module.to
            for leaf, old in tensors.items():
                if old in made:
                    tensors[leaf] = made[old]
                elif old is None or not old.is_floating_point():
                    continue
                elif isinstance(old, torch.nn.Parameter):
                    old.data = old.data.to(dtype)
                else:
                    tensors[leaf] = old.to(dtype)  # it may be a view, whose base stays as it was
    return sources


def _set_aside_weights(
    graph: ir.Graph, loaded: TorchModel, sources: Mapping[int, str]
) -> dict[ir.Value, str]:
    """Make inputs of the weights, which no pass of the exporter changes; returns their sources."""
    found = {}
    tensors = dict(loaded.model.named_parameters(remove_duplicate=False))
    for value in list(graph.initializers.values()):
        name = str(value.name).removeprefix("model.")  # of _Traced
        source = sources.get(id(tensors.get(name)), loaded.sources.get(name))
        if source:
            del graph.initializers[str(value.name)]
            value.const_value = None
            graph.inputs.append(value)
            found[value] = source
    return found


def _strip_traces(model: ir.Model) -> None:
    """Remove the exporter's stack traces: paths of this machine, and a fifth of a small file."""
    ClearMetadataAndDocStringPass()(model)
    graphs: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    values = [value for graph in graphs for node in graph.all_nodes() for value in node.outputs]
    for value in (*values, *model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.metadata_props.clear()
