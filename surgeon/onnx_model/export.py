"""Model directory → ``onnx/model.onnx``, with every editable vector an initializer of its own.

The only module that loads a model in PyTorch. The vectors are exported as graph inputs, which no
exporter pass can merge, fold or transpose, and become initializers afterwards: two of equal
content stay two, and an edit to one reaches no other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
import transformers

from surgeon.architectures import Family, canonical_name
from surgeon.checkpoint import Checkpoint, open_checkpoint
from surgeon.errors import ExportError
from surgeon.onnx_model.facts import OnnxFacts, TaskName
from surgeon.onnx_model.graph import name_values, strip_traces
from surgeon.onnx_model.parity import Batch, check_parity, make_batch
from surgeon.onnx_model.tokenizer import load_tokenizer, quiet, save_tokenizer
from surgeon.onnx_model.weights import read_initializers
from surgeon.progress import Progress
from surgeon.text import built_in_sample

MODEL = "model.onnx"
_INLINE_LIMIT = 1_500_000_000  # bytes; protobuf holds 2 GiB, beyond this weights go beside it
_LENGTHS = (5, 9, 14, 24, 48)  # tokens of the sequences that parity is checked on
_UNBOUNDED = 1_000_000  # transformers writes 1e30 where a tokenizer knows no limit

_AUTO_CLASSES = {
    "mlm": transformers.AutoModelForMaskedLM,
    "clm": transformers.AutoModelForCausalLM,
    "drift": transformers.AutoModel,
}


@dataclass(frozen=True)
class _Loaded:
    checkpoint: Checkpoint
    task: TaskName
    model: Any
    inputs: tuple[str, ...]
    parameters: Mapping[str, str]  # checkpoint name of each editable vector → the model's name

    @property
    def output(self) -> str:
        return "last_hidden_state" if self.task == "drift" else "logits"


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
    loaded = _load(source, family)
    tokenizer = load_tokenizer(source)
    folder.mkdir()
    path = folder / MODEL
    progress("exporting to ONNX", 0, 0)
    opset = _export(loaded, path)
    progress("checking the export", 0, 0)
    _check_vectors(loaded.checkpoint, path, loaded.parameters)
    max_length = _max_length(loaded.model.config, tokenizer, family)
    pad = tokenizer.pad_token_id if tokenizer and tokenizer.pad_token_id is not None else 0
    batches = _parity_batches(loaded, tokenizer, max_length, pad)
    try:
        parity = check_parity(path, lambda batch: _reference(loaded, batch), batches)
    except ExportError:
        raise
    except Exception as error:  # a graph that onnxruntime refuses raises its own types
        raise _export_error("onnxruntime cannot run the exported model", error) from error
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


def choose_task(checkpoint: Checkpoint) -> TaskName:
    """Return what a checkpoint can be scored on: its language-model head, or drift without one."""
    family = checkpoint.family
    if family.head:
        has_head = any(fragment in name for fragment in family.head for name in checkpoint.tensors)
        return family.objective if has_head else "drift"
    declared = " ".join(map(str, checkpoint.config.get("architectures") or ()))
    if "LMHead" in declared or "CausalLM" in declared or "lm_head.weight" in checkpoint.tensors:
        return family.objective
    return "drift"


def _load(source: Path, family: Family) -> _Loaded:
    checkpoint = open_checkpoint(source)
    task = choose_task(checkpoint)
    try:
        with quiet():
            model, report = _AUTO_CLASSES[task].from_pretrained(
                source,
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                attn_implementation="eager",  # exports to a cleaner graph than SDPA
                output_loading_info=True,
            )
    except Exception as error:
        raise _export_error("transformers cannot load the patched model", error) from error
    # The pooler is not part of the exported graph; anything else would be random numbers.
    missing = sorted(name for name in report["missing_keys"] if "pooler" not in name)
    if missing or report["mismatched_keys"]:
        what = missing[0] if missing else next(iter(report["mismatched_keys"]))
        raise ExportError(
            f"{checkpoint.name}: transformers finds no weights for {what} of its "
            f"{type(model).__name__}; use --no-onnx for the safetensors half alone"
        )
    model.eval()
    model.config.use_cache = False
    return _Loaded(
        checkpoint, task, model, _input_names(model, family), _parameter_names(checkpoint, model)
    )


def _input_names(model: Any, family: Family) -> tuple[str, ...]:
    names = ["input_ids", "attention_mask"]
    if family.objective == "mlm" and getattr(model.config, "type_vocab_size", 0) > 1:
        names.append("token_type_ids")
    return tuple(names)


def _parameter_names(checkpoint: Checkpoint, model: Any) -> dict[str, str]:
    """Find each editable vector among the model's parameters, and check that it is the same."""
    parameters = dict(model.named_parameters())
    found = {}
    for site in checkpoint.sites:
        for tensor in filter(None, (site.gain, site.bias)):
            wanted = canonical_name(tensor)
            matches = [name for name in parameters if _same_module(name, wanted)]
            if len(matches) != 1 or not _equal(checkpoint.read(tensor), parameters[matches[0]]):
                raise ExportError(
                    f"{checkpoint.name}: transformers does not load {tensor} as it is stored; "
                    "use --no-onnx for the safetensors half alone"
                )
            found[tensor] = matches[0]
    return found


def _same_module(one: str, other: str) -> bool:
    """Whether two names differ at most by a model prefix."""
    return one == other or one.endswith(f".{other}") or other.endswith(f".{one}")


def _equal(stored: npt.NDArray[Any], parameter: torch.Tensor) -> bool:
    return np.array_equal(
        stored.astype(np.float32).view(np.uint32), parameter.detach().numpy().view(np.uint32)
    )


class _Graph(torch.nn.Module):  # type: ignore[misc]  # torch is untyped to mypy here
    """A model as a function of its inputs and its editable vectors."""

    def __init__(self, loaded: _Loaded) -> None:
        super().__init__()
        self.model = loaded.model
        self.output = loaded.output

    def forward(
        self, tokens: dict[str, torch.Tensor], vectors: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        outputs = torch.func.functional_call(self.model, vectors, (), tokens)
        result: torch.Tensor = outputs[self.output]
        return result


def _export(loaded: _Loaded, path: Path) -> int:
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
        raise _export_error("torch cannot export the model", error) from error
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


def _reference(loaded: _Loaded, batch: Batch) -> npt.NDArray[np.float32]:
    with torch.inference_mode():
        outputs = loaded.model(**{name: torch.from_numpy(v) for name, v in batch.items()})
    result: npt.NDArray[np.float32] = outputs[loaded.output].numpy()
    return result


def _parity_batches(
    loaded: _Loaded, tokenizer: Any | None, max_length: int, pad: int
) -> list[Batch]:
    """Make batches of one, of equal lengths, and of mixed lengths with padding."""
    sequences = [s[:max_length] for s in _sequences(loaded, tokenizer)]
    groups: list[Sequence[Sequence[int]]] = [sequences[:1], sequences[-1:] * 2, sequences]
    return [make_batch(group, loaded.inputs, pad) for group in groups]


def _sequences(loaded: _Loaded, tokenizer: Any | None) -> list[list[int]]:
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


def _max_length(config: Any, tokenizer: Any | None, family: Family) -> int:
    positions = getattr(config, "max_position_embeddings", None)
    limits = [positions - family.position_offset] if positions else []
    if tokenizer is not None and tokenizer.model_max_length < _UNBOUNDED:
        limits.append(tokenizer.model_max_length)
    return int(min(limits, default=512))


def _export_error(what: str, error: Exception) -> ExportError:
    reason = next((line for line in reversed(str(error).splitlines()) if line.strip()), "")
    cause = error.__cause__ or error
    reason = str(cause).partition("\n")[0] or reason
    return ExportError(
        f"{what} ({type(cause).__name__}: {reason}); use --no-onnx for the safetensors half alone"
    )
