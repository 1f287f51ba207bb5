"""Model directory → ``onnx/model.onnx``, with every editable vector an initializer of its own.

The vectors are exported as graph inputs and become initializers afterwards: two of equal content
stay two, and an edit to one reaches no other.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import onnx_ir as ir
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass

from surgeon.errors import ExportError, ParityError, suggesting
from surgeon.model import Checkpoint
from surgeon.onnx.experts import expand_experts, fold_experts
from surgeon.onnx.facts import Dtype, OnnxFacts
from surgeon.onnx.parity import check_parity, make_probes
from surgeon.onnx.weights import find_differing
from surgeon.progress import Progress
from surgeon.tasks.examples import Batch, Side
from surgeon.tasks.sizes import longest_text
from surgeon.torch_model.directory import not_applied
from surgeon.torch_model.heads import AXES, LEFT_PADDED, unscored_head
from surgeon.torch_model.loading import (
    TorchModel,
    decoder_start_of,
    export_error,
    load_model,
    padding_id_of,
    quiet,
)
from surgeon.torch_model.tokenizer import load_tokenizer, save_tokenizer

MODEL = "model.onnx"
_INLINE_LIMIT = 1_500_000_000  # bytes; protobuf holds 2 GiB, beyond this weights go beside it
_LABELLED = ("classification", "token-classification")
# XLNet subtracts its mask from 1.0, which the exporter does not take of an integer.
_FLOAT_MASK = ("xlnet",)


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
        progress: called at each step.
        otherwise: what the user can do instead, for errors.
        dtype: of the weights. The editable vectors are those of the checkpoint rounded to it.

    Raises:
        ExportError: transformers cannot load or torch cannot export the model, the graph
            computes something else, or its vectors are not those of the checkpoint.
    """
    if dtype != "float32":
        otherwise = f"leave out `dtype` {dtype}, or {otherwise}"
    with suggesting(otherwise):
        progress("loading the model", 0, 0)
        tokenizer = load_tokenizer(checkpoint.directory)
        loaded = load_model(checkpoint)
        config = loaded.model.config
        limit = getattr(tokenizer, "model_max_length", None)
        max_length = longest_text(checkpoint.config, checkpoint.family, limit)
        pad = padding_id_of(config, tokenizer)
        left_padded = (config.model_type, loaded.task) in LEFT_PADDED
        side: Side = "left" if left_padded else "right"
        probes = make_probes(loaded, tokenizer, max_length, pad, side)
        folder.mkdir()
        path = folder / MODEL
        progress("exporting to ONNX", 0, 0)
        example = max((probe.feed for probe in probes), key=lambda feed: len(feed["input_ids"]))
        model = _trace(loaded, example, dtype)
        size = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value)
        # The name that transformers.js and Optimum look for.
        ir.save(model, path, external_data=f"{MODEL}_data" if size > _INLINE_LIMIT else None)
        progress("checking the export", 0, 0)
        if found := find_differing(path, checkpoint, loaded.parameters, dtype):
            raise ParityError(f"{path.name}: initializer {found} is not the patched tensor")
        parity = check_parity(path, probes, dtype)
    left_out, missing = unscored_head(checkpoint.config, checkpoint.family, loaded.task)
    return OnnxFacts(
        model=f"{folder.name}/{MODEL}",
        task=loaded.task,
        inputs=loaded.graph_inputs,
        output=loaded.output,
        outputs=loaded.head.outputs,
        opset=int(model.opset_imports[""]),
        max_length=max_length,
        vectors=tuple(sorted(loaded.parameters)),
        tokenizer=save_tokenizer(checkpoint.directory, folder, tokenizer, pad)
        if tokenizer
        else None,
        parity=parity,
        labels=tuple(str(label) for _, label in sorted(config.id2label.items()))
        if loaded.task in _LABELLED
        else (),
        decoder_start_id=decoder_start_of(loaded),
        padding=side,
        dtype=dtype,
        head_left_out=left_out,
        head_missing=missing,
        not_applied=not_applied(checkpoint.directory, checkpoint.config),
    )


class _Traced(torch.nn.Module):  # type: ignore[misc]  # torch is untyped to mypy here
    def __init__(self, loaded: TorchModel) -> None:
        super().__init__()
        self.model = loaded.model
        self.outputs = loaded.head.outputs
        self.floats = ["perm_mask", "target_mapping"]
        if loaded.model.config.model_type in _FLOAT_MASK:
            self.floats.append("attention_mask")

    def forward(
        self, tokens: dict[str, torch.Tensor], vectors: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, ...]:
        dtype = self.model.dtype
        taken = {n: v.to(dtype) if n in self.floats else v for n, v in tokens.items()}
        outputs = torch.func.functional_call(self.model, vectors, (), taken)
        return tuple(outputs[name].to(torch.float32) for name in self.outputs)


def _trace(loaded: TorchModel, example: Batch, dtype: Dtype) -> ir.Model:
    """Return the model as a graph with its weights in ``dtype``, the vectors under their names.

    While torch exports it the vectors are inputs, because no exporter pass can merge, fold or
    transpose an input. Afterwards the model's weights are in ``dtype``, and if it has experts it
    does not run any more. ``example`` has at least two sequences of at least two tokens.
    """
    loaded.model.to(getattr(torch, dtype))
    tokens = {name: torch.from_numpy(example[name]) for name in loaded.graph_inputs}
    parameters = dict(loaded.model.named_parameters())
    traced = [part.name for part in loaded.parameters.values() if part.expert is None]
    vectors = {name: parameters[name].detach().clone() for name in traced}
    axes = {name: dict(enumerate(AXES[name])) for name in tokens}
    try:
        # torch prints the half-made graph of what it cannot export to standard error.
        with quiet(), contextlib.redirect_stderr(io.StringIO()), _with_stand_in(loaded):
            expert = fold_experts(loaded)
            program = torch.onnx.export(
                _Traced(loaded).eval(),
                (),
                kwargs={"tokens": tokens, "vectors": vectors},
                dynamic_shapes={"tokens": axes, "vectors": {name: {} for name in vectors}},
                dynamo=True,
                verbose=False,
            )
    except ExportError:
        raise
    except Exception as error:
        raise export_error("torch cannot export the model", error) from error
    assert program is not None
    model: ir.Model = program.model
    for value in list(model.graph.initializers.values()):
        value.name = str(value.name).removeprefix("model.")  # of _Traced
    if expert is not None:
        expand_experts(model, loaded, expert)
    _name_values(model.graph, loaded, dtype)
    _strip_traces(model)
    return model


def _name_values(graph: ir.Graph, loaded: TorchModel, dtype: Dtype) -> None:
    """Name the inputs and the outputs, and turn the inputs of the vectors into initializers."""
    names = (*loaded.graph_inputs, *loaded.parameters)
    for value, name in zip(list(graph.inputs), names, strict=True):
        value.name = name
        if name in loaded.parameters:
            graph.inputs.remove(value)
            vector = loaded.checkpoint.read(name).astype(dtype)
            value.const_value = ir.tensor(vector, name=name)
            graph.register_initializer(value)
    for value, name in zip(graph.outputs, loaded.head.outputs, strict=True):
        value.name = name


def _strip_traces(model: ir.Model) -> None:
    """Remove the exporter's stack traces: paths of this machine, and a fifth of a small file."""
    ClearMetadataAndDocStringPass()(model)
    graphs: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    values = [value for graph in graphs for node in graph.all_nodes() for value in node.outputs]
    for value in (*values, *model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.metadata_props.clear()


def _turn(
    query: torch.Tensor, key: torch.Tensor, turns: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn neighbours of (batch, heads, sequence, width) by (batch, sequence, width / 2) angles."""
    cos, sin = torch.view_as_real(turns).unsqueeze(1).unbind(-1)
    turned = []
    for states in (query, key):
        one, other = states.float().unflatten(-1, (-1, 2)).unbind(-1)
        pairs = torch.stack((one * cos - other * sin, one * sin + other * cos), -1)
        turned.append(pairs.flatten(-2).to(states.dtype))
    return turned[0], turned[1]


# What stands in for a function that ONNX has nothing for, by model type.
_STAND_INS = {
    # In float16 it clamps what is infinite, and a graph cannot choose by values. Where something is
    # not finite, the graph's output is not either, and the comparison with PyTorch fails.
    "bart": ("torch.isfinite", lambda _values: SimpleNamespace(all=lambda: True)),
    # It turns queries and keys as complex numbers.
    "deepseek_v2": (
        "transformers.models.deepseek_v2.modeling_deepseek_v2.apply_rotary_emb",
        _turn,
    ),
}


def _with_stand_in(loaded: TorchModel) -> contextlib.AbstractContextManager[Any]:
    replaced = _STAND_INS.get(loaded.model.config.model_type)
    return mock.patch(*replaced) if replaced else contextlib.nullcontext()
