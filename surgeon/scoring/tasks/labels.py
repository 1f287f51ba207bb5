"""The labels of data → the outputs of a model: by name, and never by order."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from surgeon.errors import EvaluationError

_PLAIN = re.compile(r"LABEL_(\d+)", re.IGNORECASE)
_NAMED = 10  # labels that an error lists,
_LONG = 40  # and their characters: a column of texts may be taken for one of labels
_MISSING = -1  # what GLUE's test splits have in place of a label,
_IGNORED = -100  # and what PyTorch's losses pass over

CLASSES: Mapping[str, tuple[str, ...]] = {
    "glue/cola": ("unacceptable", "acceptable"),
    "glue/sst2": ("negative", "positive"),
    "glue/mrpc": ("not_equivalent", "equivalent"),
    "glue/qqp": ("not_duplicate", "duplicate"),
    "glue/mnli": ("entailment", "neutral", "contradiction"),
    "glue/qnli": ("entailment", "not_entailment"),
    "glue/rte": ("entailment", "not_entailment"),
    "glue/wnli": ("not_entailment", "entailment"),
}
"""What the integers in a task's data stand for, in order."""


def is_empty(value: Any) -> bool:
    """Whether a cell holds nothing, as a table of any format may say it."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def is_missing(value: Any, labels: Sequence[str] = ()) -> bool:
    """Whether data have this where there is no label: nothing, "-", -1 or -100.

    A number may be written as text. What the model has among its ``labels`` is a label.
    """
    number = _integer(value)
    if value == "-" or number in (_MISSING, _IGNORED):
        return str(value if number is None else number) not in labels
    return is_empty(value)


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
            f"the data have {_some(there)} and the model {_some(labels)}; "
            f"{_way_on(unknown[0], labels)}"
        )
    return [number for value in values if (number := found[value]) is not None]


def _way_on(unknown: Any, labels: Sequence[str]) -> str:
    names = {_folded(label) for label in labels}
    tasks = [task for task, classes in CLASSES.items() if set(map(_folded, classes)) == names]
    if _integer(unknown) is None:
        return "use the names in id2label of config.json"
    if tasks:
        return f"if they are GLUE's numbers, name the task: --task {' or '.join(tasks)}"
    return "use the names in id2label of config.json in place of the numbers"


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    listed = ", ".join(
        name if len(name) <= _LONG else f"{name[:_LONG]}…" for name in names[:_NAMED]
    )
    return f"{listed} and {more} more" if more > 0 else listed


def _folded(label: Any) -> str:
    return re.sub(r"[\s_]+|(?<!^)-+", "", str(label)).casefold()  # -1 is not 1


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
