"""A first run of a graph from elsewhere: does it give what is to be scored, in a batch too?"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from surgeon.errors import EvaluationError
from surgeon.evaluation.session import Session, open_session
from surgeon.onnx.facts import OnnxFacts
from surgeon.onnx_files.foreign import read_config
from surgeon.tasks.examples import (
    Encoder,
    Example,
    Side,
    batch_examples,
)
from surgeon.tasks.tokenizer import read_tokenizer
from surgeon.text import built_in_sample
from surgeon.torch_model.heads import HEADS, Rows

_Output: TypeAlias = npt.NDArray[Any]

_OVER_VOCABULARY = ("mlm", "clm", "plm", "denoising")
_TEXTS = 12  # of the built-in sample, from which a short and a long one are taken
_TARGETS = 3  # tokens to predict of a permuted sequence
# Relative to the largest value: what another order of summing makes, and far below what a token of
# padding does that is taken for text.
_CLOSE = {"float32": 1e-4, "float16": 2e-2}


def try_out(directory: Path, facts: OnnxFacts) -> OnnxFacts:
    """Run two texts alone and in one batch, and complete the facts by what came out.

    Where a text has another output in a batch, because the graph does not tell padding from text,
    the other side is tried; if that is no better, the facts say that texts go one at a time.

    Args:
        directory: the artifact.
        facts: what the files tell.

    Raises:
        EvaluationError: onnxruntime does not run the graph, its output is not of the head that the
            configuration declares, or the labels are not as many.
    """
    path = directory / facts.model
    tokenizer = read_tokenizer(directory, facts.tokenizer)
    session = open_session(path, facts.output, (), "cpu", further=facts.outputs[1:])
    examples = _examples(facts, Encoder(tokenizer, facts.max_length, None))
    rows = HEADS[facts.task].rows
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
    sides: tuple[Side, ...] = ("right", "left") if rows == "sequence" else (facts.padding,)
    for side in sorted(sides, key=lambda one: one != facts.padding):
        if _same_in_a_batch(session, facts, examples, alone, side):
            return dataclasses.replace(facts, padding=side)
    return dataclasses.replace(facts, one_at_a_time=True)


def _examples(facts: OnnxFacts, encoder: Encoder) -> list[Example]:
    """Make a short and a long example with all that the graph may take."""
    encoded = sorted(encoder.encode(built_in_sample().lines[:_TEXTS]).sequences, key=len)
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
    output: _Output, number: int, example: Example, rows: Rows, side: Side
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
    path: Path,
    facts: OnnxFacts,
    examples: Sequence[Example],
    alone: Sequence[Sequence[_Output]],
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
            f"{path}: gives {width} values a token, and a vocabulary has {wanted}: it is no "
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
