"""Model directory → ``onnx/model.onnx``, with every editable vector an initializer of its own.

The vectors are exported as graph inputs and become initializers afterwards: two of equal content
stay two, and an edit to one reaches no other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch

from surgeon.errors import ExportError, ParityError
from surgeon.model import Checkpoint
from surgeon.model.checkpoint import find_not_finite
from surgeon.onnx.facts import Dtype, OnnxFacts, name_values, strip_traces
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
