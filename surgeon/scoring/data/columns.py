"""Which columns of a table hold the texts and the label."""

from __future__ import annotations

from dataclasses import dataclass

from surgeon.errors import EvaluationError
from surgeon.scoring.data.table import Table

# What data sets call them, most telling first.
_TEXTS = ("text", "sentence1", "sentence", "premise", "question1", "question")
_PAIRS = ("text_pair", "text2", "sentence2", "hypothesis", "question2")
_LABELS = ("label", "labels", "score", "gold_label", "similarity_score", "similarity")


@dataclass(frozen=True)
class Columns:
    """The names of the columns; None: to be found among the usual names.

    Columns of a file without a header are named by number: "1", "2" and so on. ``asked`` is whether
    a user named them; otherwise they are what the data sets of a task usually call them.
    """

    text: str | None = None
    pair: str | None = None
    label: str | None = None
    asked: bool = True


@dataclass(frozen=True)
class Located:
    """A table, and the columns that it has. ``pair`` and ``label`` are None where there is none."""

    table: Table
    text: str
    pair: str | None
    label: str | None


def locate(table: Table, columns: Columns, *, pair: bool | None, label: bool = True) -> Located:
    """Find the columns, by the names that were given or the usual ones.

    A CSV or TSV file has no header where columns are given by number, or where its first line has
    none of the names and as many cells as there are columns to find.

    Args:
        table: the data.
        columns: the names that were given.
        pair: whether there must be a second text (None: there may be).
        label: whether there must be a label.

    Raises:
        EvaluationError: a column is not there or there twice, or there are no rows.
    """
    headless = table.headless
    named = [name for name in (columns.text, columns.pair, columns.label) if name is not None]
    given = named if columns.asked else []
    header = list(headless.rows[0].values()) if headless is not None else []
    if pair is None and named and not columns.asked:
        pair = columns.pair is not None
    if headless is not None and given and all(name in headless.columns for name in given):
        table = headless
    elif headless is not None and not given:
        usual = {*_TEXTS, *_PAIRS, *_LABELS, *named}
        wanted = {False: (2,), True: (3,), None: (2, 3)}[pair]
        cells = len(headless.columns) + (not label)
        if not usual & set(header) and cells in wanted:
            names = headless.columns
            return Located(headless, names[0], names[1] if cells == 3 else None, names[-1])
    if not table.rows:
        what = "a header and no rows" if headless is not None else "no rows"
        raise EvaluationError(f"--data {table.name}: has {what}; give some")
    located = Located(
        table,
        _find(table, columns.text, _TEXTS, "text") or "",
        _find(table, columns.pair, _PAIRS, "pair", needed=pair is True)
        if pair is not False
        else None,
        _find(table, columns.label, _LABELS, "label", needed=label) if label else None,
    )
    for name in (located.text, located.pair, located.label):
        if table is not headless and header.count(name) > 1:
            raise EvaluationError(
                f"--data {table.name}: {header.count(name)} columns are called {name}; give each a "
                "name of its own"
            )
    return located


def _find(
    table: Table, given: str | None, usual: tuple[str, ...], role: str, *, needed: bool = True
) -> str | None:
    candidates = usual if given is None else (given,)
    found = next((name for name in candidates if name in table.columns), None)
    if found is None and (needed or given is not None):
        by_number = ", by its number if the first line is no header" if table.headless else ""
        what = f"no column {given}" if given is not None else f"no column for the {role}"
        raise EvaluationError(
            f"--data {table.name}: {what}; it has {', '.join(table.columns)}; name one of them "
            f"with --{role}-column{by_number}"
        )
    return found
