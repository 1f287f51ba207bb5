"""What an existing ONNX file can be scored on: told by its graph and the files beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from surgeon.architectures import Family, family_of
from surgeon.checkpoint.json_object import parse_object
from surgeon.errors import EvaluationError, UnknownArchitectureError
from surgeon.onnx_model.facts import Dtype, OnnxFacts
from surgeon.onnx_model.weights import load_graph
from surgeon.scoring.tasks.task import TaskName
from surgeon.scoring.tokenizer import find_tokenizer, longest_text
from surgeon.torch_model.heads import BY_TENSORS, HEADS, Head

_CONFIG = "config.json"
_TOKENS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
_LANGUAGE_MODELS = ("MaskedLM", "LMHead", "CausalLM", "ConditionalGeneration")
# Sentence-transformers' name for what transformers calls last_hidden_state.
_STATES = ("last_hidden_state", "token_embeddings")
_LEAST_OPSET = 11  # GatherND, and axes counted from the end


def read_foreign_facts(directory: Path, model: str, dtype: Dtype) -> OnnxFacts:
    """Tell what a graph that surgeon did not export takes and gives.

    Args:
        directory: the artifact, with ``config.json`` and the tokenizer's files beside the graph or
            above it.
        model: the path of the ONNX file in it.
        dtype: of the edited tensors.

    Raises:
        EvaluationError: the graph takes what evaluation cannot feed, or it cannot be told what it
            gives.
        CheckpointError: a file is damaged.
    """
    path = directory / model
    graph = load_graph(path)
    opset = _opset(path, graph)
    config = _config(directory)
    family = _family(config)
    outputs = tuple(value.name for value in graph.graph.output)
    head = _head(path, config, family, outputs)
    scored = _scored(head, outputs)
    inputs = _inputs(path, graph.graph, head)
    tokenizer = find_tokenizer(directory, Path(model).parent.as_posix(), config.get("pad_token_id"))
    if tokenizer is None:
        raise EvaluationError(
            f"{directory}: no tokenizer.json in it; put the model's own beside the ONNX file and "
            "patch again"
        )
    return OnnxFacts(
        model=model,
        task=head.task,
        inputs=inputs,
        output=scored[0],
        opset=opset,
        max_length=longest_text(
            config.get("max_position_embeddings") or config.get("n_positions"),
            family.position_offset if family else 0,
            tokenizer.longest,
        ),
        vectors=(),
        tokenizer=tokenizer.facts,
        parity=None,
        outputs=scored,
        labels=_labels(config, head.task),
        decoder_start_id=_decoder_start(path, config, head),
        dtype=dtype,
        head_left_out=_head_left_out(config, head.task),
    )


def _opset(path: Path, model: onnx.ModelProto) -> int:
    found = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    opset = int(max(found, default=0))
    if opset < _LEAST_OPSET:
        raise EvaluationError(
            f"{path}: is of opset {opset}, and evaluation takes {_LEAST_OPSET} or later; export "
            "the model again"
        )
    return opset


def _config(directory: Path) -> Mapping[str, Any]:
    path = directory / _CONFIG
    if not path.is_file():
        return {}
    config = parse_object(str(path), path.read_bytes())
    text = config.get("text_config")  # Gemma 3 has what is about text in a part of its own
    return {**config, **text} if isinstance(text, dict) else config


def _family(config: Mapping[str, Any]) -> Family | None:
    try:
        return family_of(config.get("model_type"), config)
    except UnknownArchitectureError:
        return None


def _head(
    path: Path, config: Mapping[str, Any], family: Family | None, outputs: Sequence[str]
) -> Head:
    """Find the head that is declared, if the graph gives what it does, else the body."""
    if any(name in outputs for name in _STATES) and "logits" not in outputs:
        return HEADS["drift"]
    head = _declared_head(config, family)
    if head is not None and _scored(head, outputs):
        return head
    raise EvaluationError(
        f"{path}: gives {', '.join(outputs)}, and {_CONFIG} does not tell what that is to be "
        f"scored on; put the model's own beside it (model_type and architectures), or export with "
        f"an output named {_STATES[0]}"
    )


def _declared_head(config: Mapping[str, Any], family: Family | None) -> Head | None:
    declared = " ".join(map(str, config.get("architectures") or ()))
    for head in BY_TENSORS:
        if head.declared in declared and (head.task != "rtd" or "Electra" in declared):
            return head
    if any(fragment in declared for fragment in _LANGUAGE_MODELS):
        return HEADS[family.objective] if family and family.objective != "drift" else None
    return HEADS["drift"] if declared else None


def _scored(head: Head, outputs: Sequence[str]) -> tuple[str, ...]:
    """Return the outputs that a head is scored on; () if they are not there.

    A graph of one output has what the head gives, however it is called.
    """
    if all(name in outputs for name in head.outputs):
        return head.outputs
    if head.task == "drift" and (states := [name for name in _STATES if name in outputs]):
        return (states[0],)
    return tuple(outputs) if len(outputs) == len(head.outputs) == 1 else ()


def _inputs(path: Path, graph: onnx.GraphProto, head: Head) -> tuple[str, ...]:
    constants = {tensor.name for tensor in graph.initializer}
    taken = {value.name: value for value in graph.input if value.name not in constants}
    known = (*_TOKENS, *head.inputs)
    for name, value in taken.items():
        if name not in known:
            hint = "without its cache" if "past" in name else f"with {', '.join(known)} alone"
            raise EvaluationError(
                f"{path}: takes {name}, which evaluation does not feed; export the model {hint}"
            )
        fixed = [dim.dim_value for dim in value.type.tensor_type.shape.dim if dim.dim_value > 0]
        if fixed:
            raise EvaluationError(
                f"{path}: its {name} has a fixed length of {fixed[-1]}; export the model with "
                "dynamic axes"
            )
    missing = [name for name in (_TOKENS[0], *head.inputs) if name not in taken]
    if missing:
        raise EvaluationError(
            f"{path}: takes no {missing[0]}, which the task {head.task} feeds; export the model "
            "with it"
        )
    return tuple(name for name in known if name in taken)


def _labels(config: Mapping[str, Any], task: TaskName) -> tuple[str, ...]:
    names = config.get("id2label")
    if task not in ("classification", "token-classification") or not isinstance(names, Mapping):
        return ()
    if not all(str(number).isdecimal() for number in names):
        raise EvaluationError(f"{_CONFIG}: id2label has keys that are no numbers")
    return tuple(str(names[number]) for number in sorted(names, key=int))


def _decoder_start(path: Path, config: Mapping[str, Any], head: Head) -> int | None:
    if "decoder_input_ids" not in head.inputs:
        return None
    start = config.get("decoder_start_token_id")
    if not isinstance(start, int):
        raise EvaluationError(
            f"{path}: {_CONFIG} has no decoder_start_token_id, with which the decoder's input "
            "begins; write it there"
        )
    return start


def _head_left_out(config: Mapping[str, Any], task: TaskName) -> str:
    declared = [str(name) for name in config.get("architectures") or ()]
    with_head = (name for name in declared if "For" in name or "LMHead" in name)
    return next(with_head, "") if task == "drift" else ""
