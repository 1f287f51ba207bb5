"""Short names for people: as much of each as it takes to tell them apart."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import TypeVar

from surgeon.study.grid import Model

_Key = TypeVar("_Key", bound=Hashable)


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


def _alike(names: dict[_Key, str]) -> list[_Key]:
    counts: dict[str, int] = {}
    for name in names.values():
        counts[name] = counts.get(name, 0) + 1
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
