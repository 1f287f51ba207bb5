"""Question answering: where in a text the answer begins and ends (Rajpurkar et al. 2016).

The metric is 1 − F1 of the answers' words, which averages over questions. A context too long for
the model is read in windows that overlap, and the best answer of all of them counts.
"""

from __future__ import annotations

import dataclasses
import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from surgeon.errors import EvaluationError
from surgeon.tasks.examples import Encoder, Example, Prepared
from surgeon.tasks.labels import is_missing
from surgeon.tasks.table import COLUMN_OPTIONS, Names, locate, parse_cell
from surgeon.tasks.task import INVERTED, Data, Floats, Scores, Settings, Task, share_of_examples

if TYPE_CHECKING:
    from tokenizers import Encoding


_LONGEST = 30  # tokens of an answer, as BERT's own evaluation has it
_STRIDE = 128  # tokens of context that windows share
_CLS_TYPE = 2  # of the CLS token, in XLNet, where it comes last
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


_Offsets: TypeAlias = tuple[tuple[int, int] | None, ...]


@dataclass(frozen=True)
class _Question:
    """What an answer is taken from and compared with.

    ``offsets`` has for each window the characters of each token in the context; None for the
    others, which can be no part of an answer. ``optional`` says whether the data have questions
    without an answer.
    """

    context: str
    answers: tuple[str, ...]
    offsets: tuple[_Offsets, ...]
    optional: bool


def _read(data: Data, encoder: Encoder, settings: Settings) -> Prepared:
    located = locate(data, settings.columns, pair=True)
    table = located.table
    pairs = [(question.strip(), context) for question, context in located.pairs]
    answers = [
        _answers(value, context, table.place(row))
        for row, (value, (_, context)) in enumerate(zip(located.labels, pairs, strict=True))
    ]
    tokenizer, stride = encoder.tokenizer, min(_STRIDE, encoder.max_length // 4)
    tokenizer.enable_truncation(encoder.max_length, stride=stride, strategy="only_second")
    try:
        encoded = [tuple(map(_window, (e, *e.overflowing))) for e in encoder.each(pairs)]
    except EvaluationError as error:
        if error.__cause__ is None:  # a text that no tokenizer takes
            raise
        raise EvaluationError(
            f"`texts` {data.name}: a question leaves no room for its context in the "
            f"{encoder.max_length} tokens that the model reads at once; shorten it, or leave it out"
        ) from error
    finally:
        tokenizer.no_truncation()
    examples, optional = [], () in answers
    for windows, (_, context), expected in zip(encoded, pairs, answers, strict=True):
        inputs, offsets = zip(*windows, strict=True)
        if expected is None or not any(span for window in offsets for span in window):
            continue
        question = _Question(context, expected, offsets, optional)
        examples.append(dataclasses.replace(inputs[0], further=inputs[1:], reference=question))
    unknown = encoder.count_unknown(part.ids for e in examples for part in e.sequences)
    tokens = sum(example.tokens for example in examples)
    return Prepared(tuple(examples), len(table.rows), 0, unknown, tokens)


def _window(encoding: Encoding) -> tuple[Example, _Offsets]:
    parts = zip(encoding.offsets, encoding.sequence_ids, strict=True)
    offsets = tuple(place if part == 1 else None for place, part in parts)
    return Example(tuple(encoding.ids), types=tuple(encoding.type_ids)), offsets


def _answers(value: Any, context: str, place: str) -> tuple[str, ...] | None:
    """Return the accepted answers, in the ways that files write them.

    () is a question without an answer, None a row without a label.
    """
    if isinstance(value, str) and value and value in context:
        return (value,)
    if value != "" and is_missing(value):
        return None
    value = parse_cell(value, place)
    if isinstance(value, Mapping):
        value = value.get("text")
    if isinstance(value, str):
        return (value,) if value else ()
    if isinstance(value, list | tuple):
        texts = [entry.get("text") if isinstance(entry, Mapping) else entry for entry in value]
        if all(isinstance(text, str) for text in texts):
            return tuple(map(str, texts))
    raise EvaluationError(
        f'`texts` {place}: expected answers as a text, a list, or SQuAD\'s {{"text": […]}}'
    )


def _observe(logits: npt.NDArray[np.float32], example: Example) -> Floats:
    """Return (F1, exact match) of the best answer; ``logits`` are (windows, 2, tokens)."""
    question: _Question = example.reference
    cls = -1 if example.types[-1] == _CLS_TYPE else 0
    best = _best_answer(logits.astype(np.float64), question, cls)
    return np.array(compare_answers(best, question.answers))


def _best_answer(logits: Floats, question: _Question, cls: int) -> str:
    """Return the span of at most 30 tokens whose start and end score highest together.

    Where questions may have no answer, there is none if the CLS token, which stands for that,
    scores higher in every window (Devlin et al. 2019, section 4.3).
    """
    best, answer, nothing = -np.inf, "", np.inf
    for (starts, ends), offsets in zip(logits, question.offsets, strict=True):
        place = range(len(offsets))[cls]  # padding comes behind
        nothing = min(nothing, float(starts[place] + ends[place]))
        spans = {place: span for place, span in enumerate(offsets) if span is not None}
        if not spans:
            continue
        inside = np.array(list(spans))
        sums = starts[inside][:, None] + ends[inside][None, :]
        apart = inside[None, :] - inside[:, None]
        sums = np.where((apart >= 0) & (apart < _LONGEST), sums, -np.inf)
        first, last = np.unravel_index(sums.argmax(), sums.shape)
        if sums[first, last] > best:
            begin, end = spans[inside[first]][0], spans[inside[last]][1]
            best, answer = float(sums[first, last]), question.context[begin:end]
    return "" if question.optional and nothing > best else answer


def compare_answers(answer: str, expected: Sequence[str]) -> tuple[float, float]:
    """Return the best overlap in words (F1) with an expected answer, and whether it is one of them.

    Words are compared in lower case, without punctuation and articles. Where no answer is
    expected, an empty one is right.
    """
    words = _words_of(answer)
    others = [_words_of(other) for other in expected or ("",)]
    return max(_f1(words, other) for other in others), float(words in others)


def _words_of(answer: str) -> list[str]:
    return _ARTICLES.sub(" ", answer.lower().translate(_NO_PUNCTUATION)).split()


def _f1(first: Sequence[str], second: Sequence[str]) -> float:
    if not first or not second:
        return float(first == second)
    common = (Counter(first) & Counter(second)).total()
    return 2 * common / (len(first) + len(second))


def _measure(observed: Floats, settings: Settings) -> Mapping[str, Scores]:
    overlap, exact = observed.T
    return {"F1": share_of_examples(overlap), "exact match": share_of_examples(exact)}


def _naive(
    examples: Sequence[Example], observed: Floats, settings: Settings
) -> Mapping[str, Floats]:
    """Return what no answer at all would be observed as, and the right one to another question."""
    expected = [example.reference.answers for example in examples]
    others = [answers[0] if answers else "" for answers in (*expected[1:], expected[0])]
    return {
        "no answer to all": np.array([compare_answers("", right) for right in expected]),
        "the right answers shuffled": np.array(list(map(compare_answers, others, expected))),
    }


QUESTIONS = Task(
    name="question-answering",
    title="question answering",
    metric="1 − F1",
    unit="1 − overlap in words with the best expected answer",
    heads=("question-answering",),
    reader=_read,
    observe=_observe,
    measure=_measure,
    further=(f"{INVERTED}exact match",),
    naive=_naive,
    options=COLUMN_OPTIONS,
    columns=Names(("question",), ("context",), ("answers", "answer")),
)
