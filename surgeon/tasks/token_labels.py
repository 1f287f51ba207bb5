"""Token classification: a label for every word, such as the kind of entity it is part of.

The metric is the error rate over words. Entities, whole and of the right kind, give precision,
recall and F1, as CoNLL counts them (Tjong Kim Sang and De Meulder 2003).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from surgeon.errors import EvaluationError
from surgeon.tasks.examples import Encoder, Example, Prepared
from surgeon.tasks.labels import detection, is_missing, match_labels, rates_by_label
from surgeon.tasks.table import Located, Names, Table, locate, parse_cell
from surgeon.tasks.task import INVERTED, SHARE, Data, Floats, Scores, Settings, Task

Entity: TypeAlias = tuple[str, int, int]

_MARKS = ("B", "I", "E", "S", "L", "U")  # of a label that says where in an entity a word is
_NAMES = Names(("tokens", "words"), label=("ner_tags", "ner", "tags"))


def _read(data: Data, encoder: Encoder, settings: Settings) -> Prepared:
    located = _located(data, settings)
    words, tags = _rows(located, settings.labels)
    rewritten = _of_another_scheme(tags, settings.labels)
    if rewritten:
        tags = [  # a word without a tag stays without
            [tag and new for tag, new in zip(row, in_scheme(row, settings.labels), strict=True)]
            for row in tags
        ]
    source = located.table
    classes = source.classes.get(str(located.label), ())
    flat = [tag for row in tags for tag in row]
    numbers = iter(match_labels(flat, classes, settings.labels, source.name))
    examples, truncated, unknown, tokens = [], 0, 0, 0
    encodings = encoder.cut(words, is_pretokenized=True)
    for texts, (encoding, shorter) in zip(words, encodings, strict=True):
        expected, ids = [next(numbers) for _ in texts], tuple(encoding.ids)
        truncated += shorter
        unknown += ids.count(encoder.unknown_id)
        tokens += len(ids)
        # The first token of a word bears its label (Devlin et al. 2019, 5.3).
        first: dict[int, int] = {}
        for place, word in enumerate(encoding.word_ids):
            if word is not None:
                first.setdefault(word, place)
        asked = [(place, expected[word]) for word, place in first.items()]
        scored = [(place, label) for place, label in asked if label is not None]
        if scored:
            positions, labels = np.array(scored, dtype=np.int64).T
            examples.append(
                Example(
                    ids=ids,
                    positions=positions,
                    labels=labels,
                    types=tuple(encoding.type_ids),
                    reference=(settings.labels, rewritten),
                )
            )
    return Prepared(tuple(examples), len(source.rows), truncated, unknown, tokens)


def _located(data: Data, settings: Settings) -> Located:
    """Find words and labels: columns of lists, or the lines of each sentence."""
    if (
        not isinstance(data, Table)
        or len(data.groups) < 2  # the sentences
        or set(_NAMES.text) & {name.casefold() for name in data.columns}
    ):
        return locate(data, settings.columns, pair=False)
    sentences = data.sentences()
    if settings.columns.given:
        return locate(sentences, settings.columns, pair=False)
    if all(words == [str(n + 1) for n in range(len(words))] for words in sentences.values("1")):
        raise EvaluationError(
            f"`texts` {data.name}: the first column numbers the words; name those of the words and "
            "of their labels by number with `text_column` and `label_column`"
        )
    return Located(sentences, "1", None, str(len(data.groups[0][0])))


def _rows(located: Located, labels: Sequence[str]) -> tuple[list[list[str]], list[list[Any]]]:
    """Return the words of each row and their tags, None for a word without one."""
    words, tags = [], []
    rows = zip(located.table.values(located.text), located.labels, strict=True)
    for number, (texts, given) in enumerate(rows):
        place = located.table.place(number)
        words.append([str(text) for text in _list(texts, place)])
        whole = [None] * len(words[-1]) if is_missing(given, labels) else _list(given, place)
        if len(words[-1]) != len(whole):
            raise EvaluationError(
                f"`texts` {place}: {len(words[-1])} words and {len(whole)} labels; give each word "
                "one"
            )
        tags.append([None if is_missing(tag, labels) else tag for tag in whole])
    return words, tags


def _list(value: Any, place: str) -> list[Any]:
    """Return a list that JSON or Parquet holds, or that a CSV cell spells out."""
    value = parse_cell(value, place)
    if isinstance(value, str):
        value = value.split()
    if not isinstance(value, list | tuple):
        raise EvaluationError(f"`texts` {place}: expected a list with an entry for each word")
    return list(value)


def _of_another_scheme(rows: Sequence[Sequence[Any]], labels: Sequence[str]) -> bool:
    """Whether tags say where an entity begins and ends in another way than the model's labels.

    They do where the model lacks some of them but has all in its own scheme, and where they are
    IOB1, in which an entity begins with B- only behind another of its kind.
    """
    tags = [tag for row in rows for tag in row if tag is not None]
    if not all(isinstance(tag, str) for tag in tags):
        return False
    if set(tags) <= set(labels):
        return _begin_with("I-", rows) and not _begin_with("B-", rows)
    return {tag for row in rows for tag in in_scheme(row, labels)} <= set(labels)


def _begin_with(mark: str, rows: Sequence[Sequence[str | None]]) -> bool:
    """Whether entities that are not behind another of their kind begin with a mark."""
    return any(
        tag is not None and tag.startswith(mark) and (before or "O")[2:] != tag[2:]
        for row in rows
        for before, tag in zip((None, *row), row, strict=False)
    )


def in_scheme(row: Sequence[str | None], labels: Sequence[str]) -> list[str]:
    """Write the entities of a row of tags with the marks that the model's labels have."""
    marks = {label.partition("-")[0] for label in labels if label.partition("-")[2]}
    written = ["O"] * len(row)
    for kind, start, end in entities_of([tag or "O" for tag in row]):
        for place in range(start, end):
            fitting = "SU" if end - start == 1 else ""
            fitting += "B" if place == start else ""
            fitting += "EL" if place == end - 1 else ""
            mark = next((mark for mark in f"{fitting}I" if mark in marks), "")
            written[place] = f"{mark}-{kind}" if mark else kind
    return written


def entities_of(labels: Sequence[str]) -> list[Entity]:
    """Return the entities of a row of labels in BIO, BIOES or bare kinds: (kind, first, end).

    An entity ends where another kind begins or a B- or S- says so; "O" is none. One that begins
    with I- is taken, as in CoNLL's own count.
    """
    spans, kind, start, ended = [], "", 0, False
    for place, label in enumerate((*labels, "O")):
        mark, _, rest = label.partition("-")
        marked = mark in _MARKS and rest
        now = rest if marked else ("" if label == "O" else label)
        if kind and (now != kind or ended or (marked and mark in ("B", "S", "U"))):
            spans.append((kind, start, place))
            kind = ""
        if now and not kind:
            start = place
        kind, ended = now, bool(marked and mark in ("E", "S", "L", "U"))
    return spans


@functools.cache
def _kinds_of(labels: tuple[str, ...]) -> tuple[str, ...]:
    """Return the kinds of entities that labels name, each once, in their order."""
    return tuple(dict.fromkeys(kind for label in labels for kind, _, _ in entities_of([label])))


def _observe(logits: npt.NDArray[np.float32], example: Example) -> Floats:
    return _count(logits[example.positions].argmax(axis=1), example)


def _count(guessed: npt.NDArray[np.int64], example: Example) -> Floats:
    """Return wrong words, words, and for each kind of entity those right, found and there.

    That is (2 + 3 × kinds,): first those that were found and are right of each kind. Where the
    data's tags were rewritten in the model's scheme, so are its guesses.
    """
    labels, rewritten = example.reference
    rows = [[labels[n] for n in row] for row in (guessed, example.labels)]
    if rewritten:
        rows = [in_scheme(row, labels) for row in rows]
    wrong = sum(guess != label for guess, label in zip(*rows, strict=True))
    found, there = (set(entities_of(row)) for row in rows)
    counts = [
        sum(kind == span[0] for span in spans)
        for spans in (found & there, found, there)
        for kind in _kinds_of(labels)
    ]
    return np.array([wrong, len(rows[0]), *counts], dtype=np.float64)


def _entities(observed: Floats) -> Floats:
    """Return the entities right, found and there, (3, examples, kinds)."""
    return observed[:, 2:].reshape(len(observed), 3, -1).swapaxes(0, 1)


def _measure(observed: Floats, settings: Settings) -> Mapping[str, Scores]:
    wrong, words = observed.T[:2]
    error = Scores(wrong, words, bounds=SHARE)
    return {"error rate": error, **detection(*_entities(observed).sum(axis=2))}


def _by_label(observed: Floats, settings: Settings) -> Mapping[str, Mapping[str, float]]:
    return rates_by_label(_kinds_of(settings.labels), *_entities(observed).sum(axis=1))


def _naive(
    examples: Sequence[Example], observed: Floats, settings: Settings
) -> Mapping[str, Floats]:
    """Return what the most frequent label, for every word, would be observed as."""
    label = np.bincount(np.concatenate([example.labels for example in examples])).argmax()
    rows = [_count(np.full_like(example.labels, label), example) for example in examples]
    return {"the most frequent label for all": np.stack(rows)}


TOKEN_LABELS = Task(
    name="token-classification",
    title="token classification",
    metric="error rate",
    unit="share of words whose likeliest label is wrong",
    heads=("token-classification",),
    reader=_read,
    observe=_observe,
    measure=_measure,
    by_label=_by_label,
    whole=(f"{INVERTED}F1",),
    naive=_naive,
    options={"text_column": None, "label_column": None},
    columns=_NAMES,
)
