"""What an existing ONNX file can be scored on: told by its graph and the files beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from surgeon.errors import EvaluationError, UnknownArchitectureError
from surgeon.families import Family, family_of
from surgeon.model.checkpoint import CONFIG
from surgeon.model.files import read_object
from surgeon.onnx.facts import Dtype, OnnxFacts
from surgeon.onnx.weights import load_graph
from surgeon.tasks.sizes import longest_text, text_config
from surgeon.tasks.task import TaskName
from surgeon.tasks.tokenizer import count_or_none, find_tokenizer
from surgeon.torch_model.directory import GENERATION_CONFIG
from surgeon.torch_model.heads import (
    HEADS,
    LEFT_PADDED,
    Head,
    declared_head,
    unscored_head,
)

_TOKENS = ("input_ids", "attention_mask", "token_type_ids")
_POSITIONS = "position_ids"
# Sentence-transformers' name for what transformers calls last_hidden_state.
_STATES = ("last_hidden_state", "token_embeddings")
_LEAST_OPSET = 11  # GatherND, and axes counted from the end
_MOST = 2**31 - 1


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
    config = read_config(directory)
    if not isinstance(config.get("architectures") or [], list):
        raise EvaluationError(f"{directory / CONFIG}: architectures is no list of class names")
    family = _family(config)
    outputs = tuple(value.name for value in graph.graph.output)
    head = _head(path, config, family, outputs)
    scored = _scored(head, outputs)
    inputs = _inputs(path, graph.graph, head, family)
    tokenizer = find_tokenizer(directory, Path(model).parent.as_posix(), config.get("pad_token_id"))
    if tokenizer is None:
        raise EvaluationError(
            f"{directory}: no tokenizer.json in it; put the model's own beside the ONNX file and "
            "patch again"
        )
    left_out, missing = unscored_head(config, family, head.task)
    return OnnxFacts(
        model=model,
        task=head.task,
        inputs=inputs,
        output=scored[0],
        opset=opset,
        max_length=longest_text(config, family, tokenizer.longest),
        vectors=(),
        tokenizer=tokenizer.facts,
        parity=None,
        outputs=scored,
        labels=_labels(directory / CONFIG, config, head.task),
        decoder_start_id=_decoder_start(directory, config, head),
        padding="left" if (config.get("model_type"), head.task) in LEFT_PADDED else "right",
        dtype=dtype,
        head_left_out=left_out,
        head_missing=missing,
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


def read_config(directory: Path) -> Mapping[str, Any]:
    """Read the configuration beside a graph: what is about text in it; empty without one.

    Raises:
        CheckpointError: it is no JSON object.
    """
    return text_config(read_object(directory / CONFIG) or {})


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
    head = declared_head(config, family)
    if head is not None and _scored(head, outputs):
        return head
    raise EvaluationError(
        f"{path}: gives {', '.join(outputs)}, and {CONFIG} does not tell what that is to be "
        "scored on; put the model's own beside it (model_type and architectures), or export with "
        f"an output named {_STATES[0]}"
    )


def _scored(head: Head, outputs: Sequence[str]) -> tuple[str, ...]:
    """Return the outputs that a head is scored on; () if they are not there.

    A graph of one output has what the head gives, however it is called.
    """
    if all(name in outputs for name in head.outputs):
        return head.outputs
    if head.task == "drift" and (states := [name for name in _STATES if name in outputs]):
        return (states[0],)
    named_otherwise = head.task == "drift" and "logits" in outputs
    return tuple(outputs) if len(outputs) == len(head.outputs) == 1 > named_otherwise else ()


def _inputs(
    path: Path, graph: onnx.GraphProto, head: Head, family: Family | None
) -> tuple[str, ...]:
    constants = {tensor.name for tensor in graph.initializer}
    taken = {value.name: value for value in graph.input if value.name not in constants}
    # RoBERTa and its kin count positions from the padding token on: theirs cannot be fed.
    counted = _POSITIONS if family is not None and not family.position_offset else ""
    known = (*_TOKENS, *filter(None, [counted]), *head.inputs)
    for name, value in taken.items():
        if name not in known:
            hint = "without its cache" if "past" in name else f"with {', '.join(known)} alone"
            raise EvaluationError(
                f"{path}: takes {name}, which evaluation does not feed; export the model {hint}"
            )
        axes = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for axis, length in zip(("batch size", "length"), axes, strict=False):
            if length > (axis == "batch size"):  # one text at a time can be run
                raise EvaluationError(
                    f"{path}: its {name} has a fixed {axis} of {length}; export the model with "
                    "dynamic axes"
                )
    missing = [name for name in (_TOKENS[0], *head.inputs) if name not in taken]
    if missing:
        raise EvaluationError(
            f"{path}: takes no {missing[0]}, which the task {head.task} feeds; export the model "
            "with it"
        )
    return tuple(name for name in known if name in taken)


def _labels(path: Path, config: Mapping[str, Any], task: TaskName) -> tuple[str, ...]:
    names = config.get("id2label")
    if task not in ("classification", "token-classification") or names is None:
        return ()
    wanted = [str(number) for number in range(len(names))] if isinstance(names, dict) else None
    if wanted is None or sorted(names) != sorted(wanted):
        raise EvaluationError(
            f"{path}: its id2label does not name the labels 0 to {len(names) - 1}; write them there"
            if wanted
            else f"{path}: its id2label is no object of labels by number; write it so"
        )
    return tuple(str(names[number]) for number in wanted)


def _decoder_start(directory: Path, config: Mapping[str, Any], head: Head) -> int | None:
    if "decoder_input_ids" not in head.inputs:
        return None
    for declared in (config, read_object(directory / GENERATION_CONFIG) or {}):
        start = count_or_none(declared.get("decoder_start_token_id"), least=0, most=_MOST)
        if start is not None:
            return start
    raise EvaluationError(
        f"{directory / CONFIG}: has no decoder_start_token_id, with which the decoder's input "
        "begins; write it there"
    )
