"""Question answering: where in a text the answer begins and ends (Rajpurkar et al. 2016).

The metric is 1 − F1 of the answers' words, which averages over questions. A context too long for
the model is read in windows that overlap, and the best answer of all of them counts.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from surgeon.errors import EvaluationError
from surgeon.tasks.classification import is_missing
from surgeon.tasks.columns import (
    Names,
    Table,
    locate,
    spelled_out,
)
from surgeon.tasks.examples import Encoder, Example, Prepared
from surgeon.tasks.task import (
    INVERTED,
    Data,
    Floats,
    Scores,
    Settings,
    Task,
    share_of_examples,
)

if TYPE_CHECKING:
    from tokenizers import Encoding


_LONGEST = 30  # tokens of an answer, as BERT's own evaluation has it
_STRIDE = 128  # tokens of context that windows share


@dataclass(frozen=True)
class _Question:
    """What an answer is taken from and compared with.

    ``offsets`` has for each window the characters of each token in the context; None for the
    others, which can be no part of an answer. ``optional`` says whether the data have questions
    without an answer.
    """

    context: str
    answers: tuple[str, ...]
    offsets: tuple[tuple[tuple[int, int] | None, ...], ...]
    optional: bool


def _read(data: Data, encoder: Encoder, settings: Settings) -> Prepared:
    if not isinstance(data, Table):
        raise EvaluationError(f"--data {data.name}: questions are needed, and these are texts")
    located = locate(data, settings.columns, pair=True)
    table = located.table
    questions = [text.strip() for text in table.texts(located.text)]
    contexts = table.texts(str(located.pair))
    answers = [
        _answers(value, context, table.place(row))
        for row, (value, context) in enumerate(
            zip(table.values(str(located.label)), contexts, strict=True)
        )
    ]
    tokenizer, stride = encoder.tokenizer, min(_STRIDE, encoder.max_length // 4)
    tokenizer.enable_truncation(encoder.max_length, stride=stride, strategy="only_second")
    try:
        encoded = tokenizer.encode_batch(list(zip(questions, contexts, strict=True)))
    except Exception as error:  # the library raises plain Exception, for a question too long
        raise EvaluationError(f"--data {data.name}: a question is too long ({error})") from error
    finally:
        tokenizer.no_truncation()
    unknown = encoder.unknown_id
    examples, optional = [], () in answers
    for first, context, expected in zip(encoded, contexts, answers, strict=True):
        windows = [first, *first.overflowing]
        offsets = tuple(_context_offsets(window) for window in windows)
        if expected is None or not any(span for window in offsets for span in window):
            continue
        inputs = [Example(tuple(w.ids), types=tuple(w.type_ids)) for w in windows]
        examples.append(
            Example(
                inputs[0].ids,
                types=inputs[0].types,
                further=tuple(inputs[1:]),
                reference=_Question(context, expected, offsets, optional),
            )
        )
    sequences = [sequence for example in examples for sequence in example.sequences]
    counted = sum(s.ids.count(unknown) for s in sequences if unknown is not None)
    return Prepared(tuple(examples), len(table.rows), 0, counted)


def _context_offsets(window: Encoding) -> tuple[tuple[int, int] | None, ...]:
    return tuple(
        offsets if part == 1 else None
        for offsets, part in zip(window.offsets, window.sequence_ids, strict=True)
    )


def _answers(value: Any, context: str, place: str) -> tuple[str, ...] | None:
    """Return the accepted answers, in the ways that files write them.

    () is a question without an answer, None a row without a label.
    """
    if isinstance(value, str) and value and value in context:
        return (value,)
    if value != "" and is_missing(value):
        return None
    value = spelled_out(value, place)
    if isinstance(value, Mapping):
        value = value.get("text")
    if isinstance(value, str):
        return (value,) if value else ()
    if isinstance(value, list | tuple):
        texts = [entry.get("text") if isinstance(entry, Mapping) else entry for entry in value]
        if all(isinstance(text, str) for text in texts):
            return tuple(map(str, texts))
    raise EvaluationError(
        f'--data {place}: expected answers as a text, a list, or SQuAD\'s {{"text": […]}}'
    )


def _observe(logits: npt.NDArray[np.float32], example: Example) -> Floats:
    """Return (F1, exact match) of the best answer; ``logits`` are (windows, 2, tokens)."""
    question: _Question = example.reference
    answer = best_answer(logits.astype(np.float64), question)
    (found,) = _compared([answer], [question.answers])
    return np.asarray(found)


def best_answer(logits: Floats, question: _Question) -> str:
    """Return the span of at most 30 tokens whose start and end score highest together.

    Where questions may have no answer, there is none if the first token, which stands for that,
    scores higher in every window (Devlin et al. 2019, section 4.3).
    """
    best, answer, nothing = -np.inf, "", np.inf
    for (starts, ends), offsets in zip(logits, question.offsets, strict=True):
        nothing = min(nothing, float(starts[0] + ends[0]))
        inside = np.array([place for place, span in enumerate(offsets) if span is not None])
        if not inside.size:
            continue
        sums = starts[inside][:, None] + ends[inside][None, :]
        apart = inside[None, :] - inside[:, None]
        sums = np.where((apart >= 0) & (apart < _LONGEST), sums, -np.inf)
        first, last = np.unravel_index(sums.argmax(), sums.shape)
        if sums[first, last] > best:
            begin, end = offsets[inside[first]], offsets[inside[last]]
            assert begin is not None
            assert end is not None
            best, answer = float(sums[first, last]), question.context[begin[0] : end[1]]
    return "" if question.optional and nothing > best else answer


def _measure(observed: Floats, settings: Settings) -> Mapping[str, Scores]:  # noqa: ARG001
    overlap, exact = observed.T
    return {
        "1 − F1": share_of_examples(1 - overlap),
        "F1": share_of_examples(overlap),
        "exact match": share_of_examples(exact),
    }


def _naive(
    examples: Sequence[Example],
    observed: Floats,  # noqa: ARG001
    settings: Settings,  # noqa: ARG001
) -> Mapping[str, Floats]:
    """Return what no answer at all would be observed as, and the right one to another question."""
    expected = [example.reference.answers for example in examples]
    others = [answers[0] if answers else "" for answers in (*expected[1:], expected[0])]
    return {
        "no answer to all": _compared([""] * len(expected), expected),
        "the right answers shuffled": _compared(others, expected),
    }


def _compared(answers: Sequence[str], expected: Sequence[Sequence[str]]) -> Floats:
    pairs = zip(answers, expected, strict=True)
    rows = [(best_f1(one, right), exact_match(one, right)) for one, right in pairs]
    return np.array(rows, dtype=np.float64)


QUESTIONS = Task(
    name="question-answering",
    title="question answering",
    metric="1 − F1",
    unit="1 − overlap in words with the best expected answer",
    head="question-answering",
    read=_read,
    observe=_observe,
    measure=_measure,
    further=(f"{INVERTED}exact match",),
    naive=_naive,
    options={"text_column": None, "pair_column": None, "label_column": None},
    needs="table",
    columns=Names(("question",), ("context",), ("answers", "answer")),
)


_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def words_of(answer: str) -> list[str]:
    """Return an answer's words in lower case, without punctuation and articles."""
    plain = answer.lower().translate(_NO_PUNCTUATION)
    return _ARTICLES.sub(" ", plain).split()


def exact_match(answer: str, expected: Sequence[str]) -> float:
    """Return 1 if the answer is one of those expected; with none, an empty one is right."""
    return float(any(words_of(answer) == words_of(other) for other in expected or ("",)))


def best_f1(answer: str, expected: Sequence[str]) -> float:
    """Return the best overlap in words with one of the expected answers, from 0 to 1."""
    return max(_f1(words_of(answer), words_of(other)) for other in expected or ("",))


def _f1(first: Sequence[str], second: Sequence[str]) -> float:
    if not first or not second:
        return float(first == second)
    common = sum((Counter(first) & Counter(second)).values())
    return 2 * common / (len(first) + len(second))
