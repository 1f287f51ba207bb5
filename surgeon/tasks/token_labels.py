"""Token classification: a label for every word, such as the kind of entity it is part of.

The metric is the error rate over words. Entities, whole and of the right kind, give precision,
recall and F1, as CoNLL counts them (Tjong Kim Sang and De Meulder 2003).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from surgeon.errors import EvaluationError
from surgeon.tasks.classification import is_missing, match_labels
from surgeon.tasks.columns import (
    Located,
    Names,
    Table,
    locate,
    spelled_out,
)
from surgeon.tasks.examples import (
    Encoded,
    Encoder,
    Example,
    Prepared,
    prepare_all,
)
from surgeon.tasks.task import (
    INVERTED,
    SHARE,
    Data,
    Floats,
    Scores,
    Settings,
    Task,
)
from surgeon.text import Texts

Span: TypeAlias = tuple[str, int, int]

_MARKS = ("B", "I", "E", "S", "L", "U")  # of a label that says where in an entity a word is
_NAMES = Names(("tokens", "words"), label=("ner_tags", "ner", "tags"))


@dataclass(frozen=True)
class _Tags:
    """What the outputs stand for.

    ``rewritten`` is whether the data's labels were of another scheme than the model's, so that its
    guesses are compared as entities too.
    """

    labels: tuple[str, ...]
    rewritten: bool


def _read(data: Data, encoder: Encoder, settings: Settings) -> Prepared:
    located = _located(data, settings)
    source = located.table
    words = [_list(value, source.place(n)) for n, value in enumerate(source.values(located.text))]
    given = [
        [None] * len(words[n])
        if is_missing(value, settings.labels)
        else _list(value, source.place(n))
        for n, value in enumerate(source.values(str(located.label)))
    ]
    for row, (texts, labels) in enumerate(zip(words, given, strict=True)):
        if len(texts) != len(labels):
            raise EvaluationError(
                f"--data {source.place(row)}: {len(texts)} words and {len(labels)} labels; give "
                "each word one"
            )
    tags = [[None if is_missing(tag, settings.labels) else tag for tag in row] for row in given]
    rewritten = _of_another_scheme(tags, settings.labels)
    if rewritten:
        tags = [_kept(row, in_scheme(row, settings.labels)) for row in tags]
    classes = source.classes.get(str(located.label), ())
    flat = [tag for row in tags for tag in row if tag is not None]
    numbers = iter(match_labels(flat, classes, settings.labels, source.name))
    reference = _Tags(settings.labels, rewritten)
    examples, truncated, unknown = [], 0, 0
    for texts, labels in zip(words, tags, strict=True):
        expected = [None if tag is None else next(numbers) for tag in labels]
        encoding = encoder.tokenizer.encode([str(t) for t in texts], is_pretokenized=True)
        whole = len(encoding.ids)
        encoding.truncate(encoder.max_length)
        truncated += whole > encoder.max_length
        unknown += encoding.ids.count(encoder.unknown_id) if encoder.unknown_id is not None else 0
        first = {
            place: label
            for word, place in _first_tokens(encoding.word_ids).items()
            if (label := expected[word]) is not None
        }
        if first:
            examples.append(
                Example(
                    ids=tuple(encoding.ids),
                    positions=np.array(list(first), dtype=np.int64),
                    labels=np.array(list(first.values()), dtype=np.int64),
                    types=tuple(encoding.type_ids),
                    reference=reference,
                )
            )
    return Prepared(tuple(examples), len(source.rows), truncated, unknown)


def _located(data: Data, settings: Settings) -> Located:
    """Find words and labels: columns of lists, or the lines of each sentence."""
    if not isinstance(data, Table):
        raise EvaluationError(f"--data {data.name}: labelled rows are needed, and these are texts")
    columns, sentences = settings.columns, data.sentences
    if sentences is None or set(_NAMES.text) & {name.casefold() for name in data.columns}:
        return locate(data, columns, pair=False)
    if columns.given:
        return locate(sentences, columns, pair=False)
    return Located(sentences, sentences.columns[0], None, sentences.columns[-1])


def _of_another_scheme(rows: Sequence[Sequence[Any]], labels: Sequence[str]) -> bool:
    """Whether tags say where an entity begins and ends in another way than the model's labels.

    They do where the model lacks some of them but has all in its own scheme, and where they are
    IOB1, in which an entity begins with B- only behind another of its kind.
    """
    if not all(isinstance(tag, str) for row in rows for tag in row if tag is not None):
        return False
    known = set(labels)
    tags = {tag for row in rows for tag in row if tag is not None}
    if tags <= known:
        return _begin_with("I-", rows) and not _begin_with("B-", rows)
    return {tag for row in rows for tag in in_scheme(row, labels)} <= known


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
    for kind, start, end in spans_of([tag or "O" for tag in row]):
        for place in range(start, end):
            wanted = {
                "SU": end - start == 1,
                "B": place == start,
                "EL": place == end - 1,
                "I": True,
            }
            mark = next((m for ms, fits in wanted.items() if fits for m in ms if m in marks), "")
            written[place] = f"{mark}-{kind}" if mark else kind
    return written


def _kept(row: Sequence[str | None], written: Sequence[str]) -> list[str | None]:
    return [None if old is None else new for old, new in zip(row, written, strict=True)]


def _first_tokens(words: Sequence[int | None]) -> dict[int, int]:
    """Return where each word begins: its first token bears the label (Devlin et al. 2019, 5.3)."""
    first: dict[int, int] = {}
    for place, word in enumerate(words):
        if word is not None:
            first.setdefault(word, place)
    return first


def _list(value: Any, place: str) -> list[Any]:
    """Return a list that JSON or Parquet holds, or that a CSV cell spells out."""
    value = spelled_out(value, place)
    if isinstance(value, str):
        value = value.split()
    if not isinstance(value, list | tuple):
        raise EvaluationError(f"--data {place}: expected a list with an entry for each word")
    return list(value)


@functools.cache
def kinds_of(labels: tuple[str, ...]) -> tuple[str, ...]:
    """Return the kinds of entities that labels name, each once, in their order."""
    spans = (spans_of([label]) for label in labels)
    return tuple(dict.fromkeys(kind for found in spans for kind, _, _ in found))


def _observe(logits: npt.NDArray[np.float32], example: Example) -> Floats:
    """Return what was wrong and what was found, in one row.

    Wrong words, words, and for each kind of entity those found and right, those found, and those
    there: (2 + 3 × kinds,).
    """
    return _counted(_guessed(logits, example), example)


def _counted(guessed: npt.NDArray[np.int64], example: Example) -> Floats:
    tags: _Tags = example.reference
    rows = [[tags.labels[n] for n in row] for row in (guessed, example.labels)]
    if tags.rewritten:
        rows = [in_scheme(row, tags.labels) for row in rows]
    wrong = sum(guess != label for guess, label in zip(*rows, strict=True))
    found, there = (set(spans_of(row)) for row in rows)
    counts = [
        [sum(kind == span[0] for span in spans) for kind in kinds_of(tags.labels)]
        for spans in (found & there, found, there)
    ]
    return np.array([wrong, len(rows[0]), *itertools.chain(*counts)], dtype=np.float64)


def _guessed(logits: npt.NDArray[np.float32], example: Example) -> npt.NDArray[np.int64]:
    return np.asarray(logits[example.positions].argmax(axis=1))


def spans_of(labels: Sequence[str]) -> list[Span]:
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


def _measure(observed: Floats, settings: Settings) -> Mapping[str, Scores]:  # noqa: ARG001
    """Return the error rate, and precision, recall and F1 of the entities of the whole set."""
    wrong, words = observed.T[:2]
    right, found, there = observed[:, 2:].reshape(len(observed), 3, -1).sum(axis=2).T
    entities = np.stack([right, found], axis=1)
    statistics = {"precision": _precision, "recall": _recall, "F1": _f1}
    return {
        "error rate": Scores(wrong, words, bounds=SHARE),
        **{name: Scores(entities, there, statistic) for name, statistic in statistics.items()},
    }


def _precision(entities: Floats, there: Floats) -> Floats:  # noqa: ARG001
    right, found = entities.sum(axis=0)
    return np.asarray(right / max(found, 1.0))


def _recall(entities: Floats, there: Floats) -> Floats:
    return np.asarray(entities[:, 0].sum() / max(there.sum(), 1.0))


def _f1(entities: Floats, there: Floats) -> Floats:
    right, found = entities.sum(axis=0)
    return np.asarray(2 * right / max(found + there.sum(), 1.0))


def _naive(
    examples: Sequence[Example],
    observed: Floats,  # noqa: ARG001
    settings: Settings,  # noqa: ARG001
) -> Mapping[str, Floats]:
    """Return what the most frequent label, for every word, would be observed as."""
    label = np.bincount(np.concatenate([example.labels for example in examples])).argmax()
    rows = [_counted(np.full_like(example.labels, label), example) for example in examples]
    return {"the most frequent label for all": np.stack(rows)}


def _shares(right: float, found: float, there: float) -> dict[str, float]:
    return {
        "precision": float(right / found) if found else 0.0,
        "recall": float(right / there) if there else 0.0,
        "F1": float(2 * right / (found + there)) if found + there else 0.0,
    }


def _by_label(observed: Floats, settings: Settings) -> Mapping[str, Mapping[str, float]]:
    """Return the same of each kind of entity, and how many there are (support)."""
    counts = observed[:, 2:].sum(axis=0).reshape(3, -1).T
    return {
        kind: {**_shares(*row), "support": float(row[2])}
        for kind, row in zip(kinds_of(settings.labels), counts, strict=True)
    }


TOKEN_LABELS = Task(
    name="token-classification",
    title="token classification",
    metric="error rate",
    unit="share of words whose likeliest label is wrong",
    head="token-classification",
    read=_read,
    observe=_observe,
    measure=_measure,
    by_label=_by_label,
    further=(f"{INVERTED}F1",),
    whole=(f"{INVERTED}F1",),
    naive=_naive,
    options={"text_column": None, "label_column": None},
    needs="table",
    columns=_NAMES,
)


TEXT_OPTIONS: Mapping[str, Any] = {"text_column": None, "document": False}


def lines_of(data: Data) -> Texts:
    """Return data that must be texts.

    Raises:
        EvaluationError: they are a table.
    """
    if isinstance(data, Table):
        raise EvaluationError(f"--data {data.name}: texts are needed, and these are labelled rows")
    return data


def read_sequences(
    prepare: Callable[[tuple[int, ...], Settings], Example | None],
    data: Data,
    encoder: Encoder,
    settings: Settings,
) -> Prepared:
    """Make an example of each text, cut to the model's length, or of each block."""
    texts = lines_of(data)
    if settings.block is None:
        encoded = encoder.encode(texts.lines)
    else:
        encoded = cut_in_blocks(texts, encoder, settings.block)
    unit, given = "texts", len(texts.lines)
    if settings.block is not None:
        unit, given = "blocks", len(encoded.sequences)
    return prepare_all(encoded, lambda ids: prepare(ids, settings), given, unit)


@dataclass(frozen=True)
class Frame:
    """The special tokens that a tokenizer puts before and behind a text, and their types."""

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    types: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())

    @property
    def special(self) -> int:
        """How many they are."""
        return len(self.before) + len(self.after)


def frame_of(texts: Iterable[str], encoder: Encoder) -> Frame:
    """Return what the tokenizer puts around the first text that has tokens of its own."""
    for encoding in map(encoder.tokenizer.encode, texts):
        own = [n for n, special in enumerate(encoding.special_tokens_mask) if not special]
        if own:
            first, end = own[0], own[-1] + 1
            ids, types = tuple(encoding.ids), tuple(encoding.type_ids)
            return Frame(ids[:first], ids[end:], (types[:first], types[end:]))
    return Frame()


def room_in(block: int, special: int, encoder: Encoder) -> int:
    """Return how many tokens of text a block holds beside so many special ones.

    Raises:
        EvaluationError: none, or the block is longer than the model reads.
    """
    if not special < block <= encoder.max_length:
        raise EvaluationError(
            f"--block {block}: give a number from {special + 1} to {encoder.max_length}, the "
            "tokens that the model reads at once"
        )
    return block - special


def cut_in_blocks(texts: Texts, encoder: Encoder, block: int) -> Encoded:
    """Join the tokens of all texts and cut them to blocks; the last may be shorter.

    Each block has ``block`` tokens, with the special tokens that the tokenizer puts at both ends
    of a text.

    Raises:
        EvaluationError: no block of that size fits the special tokens or the model.
    """
    frame = frame_of(texts.lines, encoder)
    size = room_in(block, frame.special, encoder)
    encodings = encoder.tokenizer.encode_batch(list(texts.lines), add_special_tokens=False)
    stream = [token for encoding in encodings for token in encoding.ids]
    bodies = [stream[start : start + size] for start in range(0, len(stream), size)]

    return Encoded(
        sequences=tuple((*frame.before, *body, *frame.after) for body in bodies),
        truncated=0,
        unknown=stream.count(encoder.unknown_id) if encoder.unknown_id is not None else 0,
        types=tuple((*frame.types[0], *(0 for _ in body), *frame.types[1]) for body in bodies),
    )
