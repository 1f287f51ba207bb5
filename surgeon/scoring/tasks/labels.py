"""The labels of data → the outputs of a model: by name, and never by order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from surgeon.errors import EvaluationError

_PLAIN = re.compile(r"LABEL_(\d+)", re.IGNORECASE)
_NAMED = 10  # labels that an error lists,
_LONG = 40  # and their characters: a column of texts may be taken for one of labels


def match_labels(
    values: Sequence[Any], classes: Sequence[str], labels: Sequence[str], source: str
) -> list[int]:
    """Return the number of the model's output that each label of the data stands for.

    Names are compared without case, blanks, hyphens and underscores. Where the model's labels are
    the plain LABEL_0, LABEL_1, …, integers are the outputs' own numbers, and names are counted in
    the order of ``classes``.

    Args:
        values: the labels, as the data have them: names or integers.
        classes: what integers stand for in the data, in order; empty where nothing is known.
        labels: the model's, in the order of its outputs.
        source: how an error names the data.

    Raises:
        EvaluationError: the model has no such label, or one is no name or number.
    """
    outputs = {_folded(label): number for number, label in enumerate(labels)}
    plain = all(_PLAIN.fullmatch(label) for label in labels)
    names = {_folded(name): number for number, name in enumerate(classes)}
    for value in values:
        if isinstance(value, (list, dict)):
            raise EvaluationError(
                f"--data {source}: the label {value} is no name or number; name the column that "
                "has one label for each row with --label-column"
            )
    found: dict[Any, int | None] = {}
    for value in dict.fromkeys(values):
        number = _integer(value)
        if number is not None and not plain:
            known = 0 <= number < len(classes)
            names_of_it = [classes[number]] if known else [value, number]  # 5.0 too is the 5
            name = next((n for n in map(_folded, names_of_it) if n in outputs), "")
        elif number is not None:
            name = f"label{number}"
        elif plain and _folded(value) in names:
            name = f"label{names[_folded(value)]}"
        else:
            name = _folded(value)
        found[value] = outputs.get(name)
    unknown = [value for value, number in found.items() if number is None]
    if unknown:
        there = sorted(_shown(value, classes) for value in found)
        raise EvaluationError(
            f"--data {source}: the label {_shown(unknown[0], classes)} is none of the model's; "
            f"the data have {_some(there)} and the model {_some(labels)}; use the names in "
            "id2label of config.json"
        )
    return [number for value in values if (number := found[value]) is not None]


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    listed = ", ".join(
        name if len(name) <= _LONG else f"{name[:_LONG]}…" for name in names[:_NAMED]
    )
    return f"{listed} and {more} more" if more > 0 else listed


def _folded(label: Any) -> str:
    return re.sub(r"[\s_-]+", "", str(label)).casefold()


def _integer(value: Any) -> int | None:
    if isinstance(value, bool):
        return int(value)
    try:
        return int(float(value)) if float(value).is_integer() else None
    except (TypeError, ValueError, OverflowError):
        return None


def _shown(value: Any, classes: Sequence[str]) -> str:
    number = _integer(value)
    known = number is not None and 0 <= number < len(classes)
    return f"{value} ({classes[number]})" if known and number is not None else str(value)
