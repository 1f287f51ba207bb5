"""How a sweep's rows go together in pictures: by subject, in nested sets, and by which names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import takewhile
from operator import attrgetter
from pathlib import Path
from typing import TypeVar

from surgeon.edit.recipe import Dims
from surgeon.study.grid import Model
from surgeon.study.sweep_folder import Measurement

_Key = TypeVar("_Key", bound=Hashable)


def subjects(
    rows: Iterable[Measurement], others: Iterable[Model] = ()
) -> tuple[dict[str, list[Measurement]], dict[Model, str]]:
    """Group measurements by what was measured: rows of one group can be in one picture.

    Returns:
        The groups, each under a name that no other has, and the names of the models, ``others``
        among them.
    """
    what = attrgetter("model", "task", "metric", "data", "mask_rate", "controls")
    groups = list(grouped(rows, what).values())
    models = short_names([*(same[0].model for same in groups), *others], model_name)
    names = short_names(range(len(groups)), lambda n, parts: _subject(groups[n][0], models, parts))
    return {names[number]: same for number, same in enumerate(groups)}, models


def _subject(row: Measurement, models: Mapping[Model, str], parts: int) -> str:
    data = f" on {path_name(row.data, parts)}" if row.data else ""
    masked = f", {row.mask_rate:.4g} of it masked" if row.mask_rate is not None else ""
    # Nobody wonders about the number of controls unless nothing else differs.
    controls = f", {row.controls} controls" if row.controls and parts > 1 else ""
    return f"{models[row.model]}: {row.task}{data}{masked}{controls}"


def grouped(
    rows: Iterable[Measurement], key: Callable[[Measurement], _Key]
) -> dict[_Key, list[Measurement]]:
    """Group measurements by a key, in the order of the rows."""
    groups: dict[_Key, list[Measurement]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def chains(sets: Iterable[Dims]) -> list[tuple[Dims, ...]]:
    """Return the series of two or more nested sets, smallest set first, the longest series first.

    Each starts from a set that no other holds. Where several smaller ones are in it, such as both
    of its dims, it goes on with the one that it begins with; if it begins with none, it ends.
    """
    ordered = sorted(set(sets), key=len, reverse=True)

    def is_top(dims: Dims) -> bool:
        larger = takewhile(lambda other: len(other) > len(dims), ordered)
        return not any(set(dims) < set(other) for other in larger)

    found = [_downwards(top, ordered) for top in ordered if is_top(top)]
    return sorted((chain for chain in found if len(chain) > 1), key=len, reverse=True)


def _downwards(top: Dims, ordered: Sequence[Dims]) -> tuple[Dims, ...]:
    chain = [top]
    for size in range(len(top) - 1, 0, -1):
        last = chain[-1]
        inside = [dims for dims in ordered if len(dims) == size and set(dims) < set(last)]
        if len(inside) > 1:
            inside = [dims for dims in inside if dims == last[:size]]
            if not inside:
                break
        chain += inside
    return tuple(reversed(chain))


def short_names(
    items: Iterable[_Key], name: Callable[[_Key, int], str], start: int = 1
) -> dict[_Key, str]:
    """Name each item, no two alike.

    Args:
        items: what to name.
        name: an item's name of some length, such as a path's last parts. A length that says
            no more than the one before has come to its end.
        start: the length of a name that needs no more.
    """
    found = {item: name(item, start) for item in items}
    length = start
    while alike := _alike(found):
        length += 1
        longer = {item: name(item, length) for item in alike}
        if all(longer[item] == found[item] for item in alike):
            break
        found |= longer
    for number, item in enumerate(_alike(found), start=1):
        found[item] += f" ({number})"
    return found


def _alike(names: Mapping[_Key, str]) -> list[_Key]:
    counts = Counter(names.values())
    return [item for item, name in names.items() if counts[name] > 1]


def path_name(path: str, parts: int) -> str:
    """Return the last parts of a path; what is none, such as a Hub id, is left whole."""
    if not Path(path).is_absolute():
        return path
    return "/".join(Path(path).parts[-parts:]).replace("//", "/")


def model_name(model: Model, parts: int) -> str:
    """Return a model's name with the last parts of its path."""
    revision = f"@{model.revision}" if model.revision else ""
    pattern = f" with {model.sites_pattern}" if model.sites_pattern else ""
    return f"{path_name(model.model, parts)}{revision}{pattern}"
