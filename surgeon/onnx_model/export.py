"""Model directory → ``onnx/model.onnx``, with every editable vector an initializer of its own.

The vectors are exported as graph inputs, which no
exporter pass can merge, fold or transpose, and become initializers afterwards: two of equal
content stay two, and an edit to one reaches no other.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch

from surgeon.architectures import Family
from surgeon.checkpoint import Checkpoint
from surgeon.errors import ExportError
from surgeon.onnx_model.facts import OnnxFacts
from surgeon.onnx_model.graph import name_values, strip_traces
from surgeon.onnx_model.parity import check_parity
from surgeon.onnx_model.weights import read_initializers
from surgeon.progress import Progress
from surgeon.scoring.examples import Batch, make_batch
from surgeon.text import built_in_sample
from surgeon.torch_model.loading import TorchModel, explained, load_model, max_length_of
from surgeon.torch_model.tokenizer import load_tokenizer, quiet, save_tokenizer

MODEL = "model.onnx"
OTHERWISE = "use --no-onnx for the safetensors half alone"
"""What an error about the ONNX half leaves to do."""

_INLINE_LIMIT = 1_500_000_000  # bytes; protobuf holds 2 GiB, beyond this weights go beside it
_LENGTHS = (5, 9, 14, 24, 48)  # tokens of the sequences that parity is checked on


def export_model(source: Path, folder: Path, family: Family, progress: Progress) -> OnnxFacts:
    """Export the model in ``source`` to ``folder``/model.onnx and check it.

    The graph takes ``input_ids``, ``attention_mask`` and, where the model has them,
    ``token_type_ids``, int64 of shape (batch, sequence), both dynamic. It gives float32
    ``logits`` (batch, sequence, vocabulary), or ``last_hidden_state`` (batch, sequence, hidden)
    for a model without a language-model head.

    Raises:
        ExportError: transformers cannot load or torch cannot export the model, the graph
            computes something else, or its vectors are not those of the checkpoint.
    """
    progress("loading the model", 0, 0)
    loaded = load_model(source, family, OTHERWISE)
    tokenizer = load_tokenizer(source)
    folder.mkdir()
    path = folder / MODEL
    progress("exporting to ONNX", 0, 0)
    opset = _export(loaded, path)
    progress("checking the export", 0, 0)
    _check_vectors(loaded.checkpoint, path, loaded.parameters)
    max_length = max_length_of(loaded.model.config, tokenizer, family)
    pad = tokenizer.pad_token_id if tokenizer and tokenizer.pad_token_id is not None else 0
    batches = _parity_batches(loaded, tokenizer, max_length, pad)
    try:
        parity = check_parity(path, lambda batch: _reference(loaded, batch), batches)
    except ExportError:
        raise
    except Exception as error:  # a graph that onnxruntime refuses raises its own types
        raise explained("onnxruntime cannot run the exported model", error, OTHERWISE) from error
    return OnnxFacts(
        model=f"{folder.name}/{MODEL}",
        task=loaded.task,
        inputs=loaded.inputs,
        output=loaded.output,
        opset=opset,
        max_length=max_length,
        vectors=tuple(sorted(loaded.parameters)),
        tokenizer=save_tokenizer(source, folder, tokenizer, pad) if tokenizer else None,
        parity=parity,
    )


class _Graph(torch.nn.Module):  # type: ignore[misc]  # torch is untyped to mypy here
    """A model as a function of its inputs and its editable vectors."""

    def __init__(self, loaded: TorchModel) -> None:
        super().__init__()
        self.model = loaded.model
        self.output = loaded.output

    def forward(
        self, tokens: dict[str, torch.Tensor], vectors: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        outputs = torch.func.functional_call(self.model, vectors, (), tokens)
        result: torch.Tensor = outputs[self.output]
        return result


def _export(loaded: TorchModel, path: Path) -> int:
    tokens = {name: torch.ones((2, 7), dtype=torch.int64) for name in loaded.inputs}
    tokens["attention_mask"][1, 5:] = 0
    parameters = dict(loaded.model.named_parameters())
    vectors = {name: parameters[name].detach().clone() for name in loaded.parameters.values()}
    axes = {0: "batch", 1: "sequence"}
    try:
        with quiet():
            program = torch.onnx.export(
                _Graph(loaded).eval(),
                (),
                kwargs={"tokens": tokens, "vectors": vectors},
                dynamic_shapes={
                    "tokens": dict.fromkeys(tokens, axes),
                    "vectors": {name: {} for name in vectors},
                },
                dynamo=True,
                verbose=False,
            )
    except Exception as error:
        raise explained("torch cannot export the model", error, OTHERWISE) from error
    assert program is not None
    model = program.model
    vectors_stored = {
        name: loaded.checkpoint.read(name).astype(np.float32) for name in loaded.parameters
    }
    name_values(model, loaded.inputs, vectors_stored, loaded.output)
    strip_traces(model)
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values())
    ir.save(model, path, external_data=f"{MODEL}.data" if size > _INLINE_LIMIT else None)
    return int(model.opset_imports[""])


def _check_vectors(checkpoint: Checkpoint, path: Path, names: Collection[str]) -> None:
    """Check, bit for bit, that the two halves hold the same vectors."""
    for name, values in read_initializers(path, names).items():
        stored = checkpoint.read(name).astype(np.float32)
        if values.shape != stored.shape or values.tobytes() != stored.tobytes():
            raise ExportError(f"{path.name}: initializer {name} is not the patched tensor")


def _reference(loaded: TorchModel, batch: Batch) -> npt.NDArray[np.float32]:
    with torch.inference_mode():
        outputs = loaded.model(**{name: torch.from_numpy(v) for name, v in batch.items()})
    result: npt.NDArray[np.float32] = outputs[loaded.output].numpy()
    return result


def _parity_batches(
    loaded: TorchModel, tokenizer: Any | None, max_length: int, pad: int
) -> list[Batch]:
    """Make batches of one, of equal lengths, and of mixed lengths with padding."""
    sequences = [s[:max_length] for s in _sequences(loaded, tokenizer)]
    groups: list[Sequence[Sequence[int]]] = [sequences[:1], sequences[-1:] * 2, sequences]
    return [make_batch(group, loaded.inputs, pad) for group in groups]


def _sequences(loaded: TorchModel, tokenizer: Any | None) -> list[list[int]]:
    """Return real sentences where the tokenizer knows their words, else drawn token ids."""
    if tokenizer is not None:
        sentences = built_in_sample().lines
        encoded = [tokenizer(line)["input_ids"] for line in sentences[: 2 * len(_LENGTHS)]]
        flat = [token for ids in encoded for token in ids]
        if flat.count(tokenizer.unk_token_id) < len(flat) / 4:
            return sorted(encoded, key=len)
    drawn = np.random.default_rng(0)
    vocabulary = loaded.model.config.vocab_size
    return [drawn.integers(vocabulary, size=length).tolist() for length in _LENGTHS]
