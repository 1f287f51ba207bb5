"""Token classification: a label for every word, such as the kind of entity it is part of.

The metric is the error rate over words. Entities, whole and of the right kind, give precision,
recall and F1, as CoNLL counts them (Tjong Kim Sang and De Meulder 2003).
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from surgeon.errors import EvaluationError
from surgeon.scoring.data import Columns, Table
from surgeon.scoring.data.columns import locate
from surgeon.scoring.encoder import Encoder, Prepared
from surgeon.scoring.examples import Example
from surgeon.scoring.tasks.labels import match_labels
from surgeon.scoring.tasks.task import Data, Floats, Scores, Settings, Task

Span: TypeAlias = tuple[str, int, int]

_COLUMNS = Columns("tokens", label="ner_tags")


def _read(data: Data, encoder: Encoder, settings: Settings) -> Prepared:
    if not isinstance(data, Table):
        raise EvaluationError(f"--data {data.name}: labelled rows are needed, and these are texts")
    located = locate(data, settings.columns, pair=False)
    source = located.table
    words, tags = (
        [_list(value, source.place(n)) for n, value in enumerate(source.values(column))]
        for column in (located.text, str(located.label))
    )
    classes = source.classes.get(str(located.label), ())
    flat = [tag for row in tags for tag in row]
    numbers = iter(match_labels(flat, classes, settings.labels, source.name))
    examples, truncated, unknown = [], 0, 0
    for row, (texts, labels) in enumerate(zip(words, tags, strict=True)):
        if len(texts) != len(labels):
            raise EvaluationError(
                f"--data {source.place(row)}: {len(texts)} words and {len(labels)} labels; give "
                "each word one"
            )
        expected = [next(numbers) for _ in labels]
        encoding = encoder.tokenizer.encode([str(t) for t in texts], is_pretokenized=True)
        whole = len(encoding.ids)
        encoding.truncate(encoder.max_length)
        truncated += whole > encoder.max_length
        unknown += encoding.ids.count(encoder.unknown_id) if encoder.unknown_id is not None else 0
        first = _first_tokens(encoding.word_ids)
        if first:
            examples.append(
                Example(
                    ids=tuple(encoding.ids),
                    positions=np.array(list(first.values()), dtype=np.int64),
                    labels=np.array([expected[word] for word in first], dtype=np.int64),
                    types=tuple(encoding.type_ids),
                    reference=settings.labels,
                )
            )
    return Prepared(tuple(examples), len(source.rows), truncated, unknown)


def _first_tokens(words: Sequence[int | None]) -> dict[int, int]:
    """Return where each word begins: its first token bears the label (Devlin et al. 2019, 5.3)."""
    first: dict[int, int] = {}
    for place, word in enumerate(words):
        if word is not None:
            first.setdefault(word, place)
    return first


def _list(value: Any, place: str) -> list[Any]:
    """Return a list that JSON or Parquet holds, or that a CSV cell spells out."""
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value) if value.lstrip().startswith("[") else value.split()
        except (SyntaxError, ValueError):
            value = None
    if not isinstance(value, list | tuple):
        raise EvaluationError(f"--data {place}: expected a list with an entry for each word")
    return list(value)


def _observe(logits: npt.NDArray[np.float32], example: Example) -> Floats:
    """Return (wrong words, words, entities found and right, entities found, entities there)."""
    guessed = logits[example.positions].argmax(axis=1)
    names = [tuple(example.reference[n] for n in row) for row in (guessed, example.labels)]
    found, there = (set(spans_of(row)) for row in names)
    wrong = (guessed != example.labels).sum()
    counts = (wrong, len(guessed), len(found & there), len(found), len(there))
    return np.array(counts, dtype=np.float64)


def spans_of(labels: Sequence[str]) -> list[Span]:
    """Return the entities of a row of labels in BIO, BIOES or bare kinds: (kind, first, end).

    An entity ends where another kind begins or a B- or S- says so; "O" is none. One that begins
    with I- is taken, as in CoNLL's own count.
    """
    spans, kind, start, ended = [], "", 0, False
    for place, label in enumerate((*labels, "O")):
        mark, _, rest = label.partition("-")
        marked = mark in ("B", "I", "E", "S", "L", "U") and rest
        now = rest if marked else ("" if label == "O" else label)
        if kind and (now != kind or ended or (marked and mark in ("B", "S", "U"))):
            spans.append((kind, start, place))
            kind = ""
        if now and not kind:
            start = place
        kind, ended = now, bool(marked and mark in ("E", "S", "L", "U"))
    return spans


def _score(observed: Floats, baseline: Floats) -> Mapping[str, Scores]:  # noqa: ARG001
    wrong, words = observed.T[:2]
    return {"error rate": Scores(wrong, words)}


def _measure(observed: Floats, settings: Settings) -> Mapping[str, float]:  # noqa: ARG001
    """Return precision, recall and F1 of entities over the whole set; 0 where there are none."""
    right, found, there = observed[:, 2:].sum(axis=0)
    return {
        "precision": float(right / found) if found else 0.0,
        "recall": float(right / there) if there else 0.0,
        "F1": float(2 * right / (found + there)) if found + there else 0.0,
    }


TOKEN_LABELS = Task(
    name="token-classification",
    title="token classification",
    metric="error rate",
    unit="share of words whose likeliest label is wrong",
    head="token-classification",
    read=_read,
    observe=_observe,
    score=_score,
    measure=_measure,
    options={"text_column": None, "label_column": None},
    needs="table",
    columns=_COLUMNS,
)
