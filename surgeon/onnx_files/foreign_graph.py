"""What a graph from elsewhere can be scored on: by the files beside it, then by a first run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx

from surgeon.errors import EvaluationError
from surgeon.evaluation.session import Session, is_cache, open_session
from surgeon.families import Family, known_family
from surgeon.model.checkpoint import CONFIG
from surgeon.onnx.facts import Dtype, OnnxFacts, check_rows
from surgeon.onnx.read_graph import read_file_graph
from surgeon.onnx.weights import load_graph
from surgeon.tasks.configuration import longest_text, read_config
from surgeon.tasks.examples import Encoder, Example, Side, batch_examples
from surgeon.tasks.task import TaskName
from surgeon.tasks.tokenizer import find_tokenizer, read_tokenizer
from surgeon.text import built_in_sample
from surgeon.torch_model.directory import decoder_start
from surgeon.torch_model.heads import (
    HEADS,
    LEFT_PADDED,
    Head,
    RowKind,
    declared_head,
    unscored_head,
)

_Output: TypeAlias = npt.NDArray[Any]

_TOKENS = ("input_ids", "attention_mask", "token_type_ids")
_POSITIONS = "position_ids"
# Sentence-transformers' name for what transformers calls last_hidden_state.
_STATES = ("last_hidden_state", "token_embeddings")
_LEAST_OPSET = 11  # GatherND, and axes counted from the end
_OVER_VOCABULARY = ("mlm", "clm", "plm", "denoising")
_TEXTS = 12  # of the built-in sample, from which a short and a long one are taken
_TARGETS = 3  # tokens to predict of a permuted sequence
# Relative to the largest value: what another order of summing makes, and far below what a token of
# padding does that is taken for text.
_CLOSE = {"float32": 1e-4, "float16": 2e-2}


def infer_facts(directory: Path, model: str, dtype: Dtype) -> OnnxFacts:
    """Infer what a graph that surgeon did not export takes and gives.

    Two texts are run alone and in one batch. Where a text has another output in a batch, because
    the graph takes padding for text, the other side is tried; if that is no better, the facts say
    that texts go one at a time.

    Args:
        directory: the artifact, with ``config.json`` and the tokenizer's files beside the graph or
            above it.
        model: the path of the ONNX file in it.
        dtype: of the edited tensors.

    Raises:
        EvaluationError: the graph takes what evaluation cannot feed, nothing says what it gives,
            onnxruntime does not run it, its output is not of the head that the configuration
            declares, or the labels are not as many.
        CheckpointError: a file is damaged.
    """
    facts = _declared_facts(directory, model, dtype)
    check_rows(directory, facts, read_file_graph(directory / model, directory))
    return _probe(directory, facts)


def _declared_facts(directory: Path, model: str, dtype: Dtype) -> OnnxFacts:
    path = directory / model
    graph = load_graph(path)
    opset = max((e.version for e in graph.opset_import if e.domain in ("", "ai.onnx")), default=0)
    if opset < _LEAST_OPSET:
        raise EvaluationError(
            f"{path}: is of opset {opset}, and evaluation takes {_LEAST_OPSET} or later; export "
            "the model again"
        )
    config = read_config(directory)
    if not isinstance(config.get("architectures") or [], list):
        raise EvaluationError(f"{directory / CONFIG}: architectures is not a list of class names")
    family = known_family(config)
    outputs = [value.name for value in graph.graph.output]
    head, scored = _head(path, config, family, outputs)
    inputs = _inputs(path, graph.graph, head, family)
    folder = Path(model).parent.as_posix()
    tokenizer, longest = find_tokenizer(directory, folder, config.get("pad_token_id"))
    left_out, missing = unscored_head(config, family, head.task)
    return OnnxFacts(
        model=model,
        task=head.task,
        inputs=inputs,
        output=scored[0],
        opset=int(opset),
        max_length=longest_text(config, family, longest),
        vectors=(),
        tokenizer=tokenizer,
        parity=None,
        outputs=scored,
        labels=_labels(directory / CONFIG, config, head.task),
        decoder_start_id=_decoder_start(directory, config, head),
        padding="left" if (config.get("model_type"), head.task) in LEFT_PADDED else "right",
        dtype=dtype,
        head_left_out=left_out,
        head_missing=missing,
    )


def _probe(directory: Path, facts: OnnxFacts) -> OnnxFacts:
    path = directory / facts.model
    tokenizer = read_tokenizer(directory, facts.tokenizer)
    session = open_session(path, facts.outputs, (), "cpu")
    examples = _examples(facts, Encoder(tokenizer, facts.max_length, None))
    try:
        alone = [_run(session, facts, [example], facts.padding)[0] for example in examples]
    except EvaluationError as error:
        raise EvaluationError(
            f"{path}: {error}; if that is too long a text, write max_position_embeddings into the "
            "config.json beside it"
        ) from error
    width = _check_shapes(path, facts, examples, alone)
    if facts.task in _OVER_VOCABULARY:
        _check_vocabulary(path, width, read_config(directory), tokenizer.get_vocab_size())
    labels = facts.labels
    if facts.task in ("classification", "token-classification"):
        labels = labels or tuple(f"LABEL_{number}" for number in range(width))
        if len(labels) != width:
            raise EvaluationError(
                f"{path}: gives {width} values a text or token, and id2label in config.json names "
                f"{len(labels)} labels; write those of the model there"
            )
    facts = dataclasses.replace(facts, labels=labels)
    others: tuple[Side, ...] = ("right", "left") if HEADS[facts.task].rows == "sequence" else ()
    for side in dict.fromkeys((facts.padding, *others)):
        if _same_in_a_batch(session, facts, examples, alone, side):
            return dataclasses.replace(facts, padding=side)
    return dataclasses.replace(facts, one_at_a_time=True)


def _head(
    path: Path, config: Mapping[str, Any], family: Family | None, outputs: Sequence[str]
) -> tuple[Head, tuple[str, ...]]:
    """Return the head that is declared, if the graph has its outputs, else the body, and these."""
    states = any(name in outputs for name in _STATES) and "logits" not in outputs
    head = HEADS["drift"] if states else declared_head(config, family)
    if head is not None and (scored := _scored(head, outputs)):
        return head, scored
    raise EvaluationError(
        f"{path}: gives {', '.join(outputs)}, and {CONFIG} does not say what that is to be "
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
        axes = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if is_cache(name, axes):
            continue
        if name not in known:
            hint = "without its cache" if "past" in name else f"with {', '.join(known)} alone"
            raise EvaluationError(
                f"{path}: takes {name}, which evaluation does not feed; export the model {hint}"
            )
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
            else f"{path}: its id2label is not an object of labels by number; write it so"
        )
    return tuple(str(names[number]) for number in wanted)


def _decoder_start(directory: Path, config: Mapping[str, Any], head: Head) -> int | None:
    if "decoder_input_ids" not in head.inputs:
        return None
    start = decoder_start(directory, config.get("decoder_start_token_id"))
    if start is None:
        raise EvaluationError(
            f"{directory / CONFIG}: has no decoder_start_token_id, with which the decoder's input "
            "begins; write it there"
        )
    return start


def _examples(facts: OnnxFacts, encoder: Encoder) -> list[Example]:
    """Make a short and a long example with all that the graph may take."""
    texts = encoder.encode(built_in_sample().lines[:_TEXTS]).examples
    encoded = sorted((example.ids for example in texts), key=len)
    # A tokenizer that knows no English word and no unknown one makes nothing of it.
    found = [ids if len(ids) > 1 else (0, 1, 1, 0) for ids in (encoded[0], encoded[-1])]
    return [
        Example(
            ids,
            decoder_ids=(facts.decoder_start_id or 0, *ids[: len(ids) // 2]),
            places=(*(0 for _ in ids[_TARGETS:]), *range(1, 1 + len(ids[:_TARGETS]))),
        )
        for ids in found
    ]


def _run(
    session: Session, facts: OnnxFacts, examples: Sequence[Example], side: Side
) -> list[list[_Output]]:
    """Return the outputs of each example, without the rows of padding."""
    pad = facts.tokenizer.pad_id if facts.tokenizer else 0
    batch = batch_examples(examples, facts.inputs, pad, side)
    outputs = session.run(batch, {})
    rows = HEADS[facts.task].rows
    return [
        [_without_padding(output, number, example, rows, side) for output in outputs]
        for number, example in enumerate(examples)
    ]


def _without_padding(
    output: _Output, number: int, example: Example, rows: RowKind, side: Side
) -> _Output:
    if output.ndim == 0:
        return output
    own: _Output = np.asarray(output[number])
    if rows == "sequence" or own.ndim == 0:
        return own
    if rows == "target":
        return own[: len(example.decoder_ids)]  # of a permuted sequence, all that there are
    count = len(example.ids)
    return own[-count:] if side == "left" else own[:count]


def _check_shapes(
    path: Path, facts: OnnxFacts, examples: Sequence[Example], alone: Sequence[Sequence[_Output]]
) -> int:
    """Check what an example gives, and return the width of it."""
    rows = HEADS[facts.task].rows
    several = rows != "sequence"
    narrow = facts.task in ("rtd", "question-answering")  # one value a token
    for example, outputs in zip(examples, alone, strict=True):
        for output in outputs:
            fits = output.ndim == (1 if narrow or not several else 2)
            if not fits or (rows == "token" and len(output) != len(example.ids)):
                wanted = "each token" if several else "each text"
                raise EvaluationError(
                    f"{path}: gives an output of shape {list(output.shape)} for a text of "
                    f"{len(example.ids)} tokens, and the task {facts.task} takes one of "
                    f"{'one value' if narrow else 'several values'} for {wanted}; put the model's "
                    "own config.json beside it"
                )
    return int(alone[0][0].shape[-1])


def _check_vocabulary(path: Path, width: int, config: Mapping[str, Any], known: int) -> None:
    declared = config.get("vocab_size")
    if width != declared if isinstance(declared, int) else width < known:
        wanted = f"{declared} by config.json" if isinstance(declared, int) else f"at least {known}"
        raise EvaluationError(
            f"{path}: gives {width} values a token, and a vocabulary has {wanted}: it is not a "
            "language model's output; put the model's own config.json beside it"
        )


def _same_in_a_batch(
    session: Session,
    facts: OnnxFacts,
    examples: Sequence[Example],
    alone: Sequence[Sequence[_Output]],
    side: Side,
) -> bool:
    try:
        together = _run(session, facts, examples, side)
    except EvaluationError:  # a batch of one is all that it takes
        return False
    close = _CLOSE[facts.dtype]
    return all(
        one.shape == other.shape
        and np.allclose(one, other, rtol=0, atol=close * max(1.0, float(np.abs(one).max())))
        for first, second in zip(alone, together, strict=True)
        for one, other in zip(first, second, strict=True)
    )
