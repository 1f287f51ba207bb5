"""What belongs to an operation beside itself: how to measure it, and what that should show."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from surgeon.surgery.fields import LARGEST, MOST, Flag, Number, Whole, found

Grade: TypeAlias = Literal["S", "F", "N", "D", "O"]
ExpectedVerdict: TypeAlias = Literal["degraded", "intact"]

GRADES: dict[Grade, str] = {
    "S": "seen in a primary text, in authors' code or in their stored output",
    "F": "read off an authors' figure, so approximate",
    "N": "seen only in notes on the paper",
    "D": "derived",
    "O": "measured for this project",
}
"""How well a published figure is known."""


@dataclass(frozen=True)
class EvaluationSettings:
    """The evaluation that belongs to an operation; None leaves a setting to ``evaluate``.

    ``task`` is the one that the settings and the expectation are about: another task makes them
    meaningless. ``data`` is a file with one text per line; in a recipe's file its path starts
    from that file.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (pydantic reads it off the class)

    task: str | None = None
    data: str | None = None
    controls: Whole | None = None
    seed: Whole | None = None
    mask_rate: Number | None = None
    dose: Flag | None = None
    until_certain: Flag | None = None

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Yield the fields that no evaluation can take, each with what is wrong."""
        from surgeon.scoring.tasks import TASKS

        if self.task is not None and self.task not in TASKS:
            yield "task", f"{self.task!r} is no task; there is {', '.join(TASKS)}"
        if self.controls is not None and not 1 <= self.controls <= LARGEST:
            yield "controls", f"{found(self.controls)}: give a number of 1 or more"
        if self.seed is not None and not 0 <= self.seed <= MOST:
            yield "seed", f"{found(self.seed)}: give a number of 0 or more, to {MOST} at most"
        if self.mask_rate is not None and not 0 < self.mask_rate < 1:
            yield "mask_rate", f"{self.mask_rate:g}: give a share between 0 and 1"

    def given(self) -> dict[str, Any]:
        """Return the settings that are there, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Published:
    """A figure that somebody reported, and how well it is known.

    ``before`` and ``after`` are those of the full model and of the edited one, ``within`` is how
    far they may be off; a finding without numbers has none. ``dims`` are those it is about, where
    they are not all of the recipe's.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    what: str
    grade: Grade
    source: str
    before: Number | None = None
    after: Number | None = None
    within: Number | None = None
    dims: tuple[Whole, ...] | None = None

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Yield the fields that say nothing, each with what is wrong."""
        for name in ("what", "source"):
            if not getattr(self, name).strip():
                yield name, "is empty; a figure is worth what is known of it"
        for name in ("before", "after", "within"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                yield name, f"{value}: give a finite number"
        if self.dims is not None and (advice := wrong_numbers(self.dims, "dimension")):
            yield "dims", f"{advice}; found {found(self.dims)}"


@dataclass(frozen=True)
class Expectation:
    """What an operation should show: the verdict of ``eval``, and what others have reported."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    verdict: ExpectedVerdict | None = None
    published: tuple[Published, ...] = ()


def wrong_numbers(numbers: Sequence[int], what: str) -> str | None:
    """Return how to name dimensions or layers, if these are none, twice the same, or no indexes."""
    if not numbers or len(set(numbers)) != len(numbers):
        return f"name each {what} once, and one or more"
    if not 0 <= min(numbers) <= max(numbers) <= LARGEST:
        return f"{what}s are counted from 0, to {LARGEST:,} at most"
    return None


def expected_verdict(recipe: Mapping[str, Any], task: str) -> ExpectedVerdict | None:
    """Return the verdict that a recorded recipe expects of an evaluation; None: it names none.

    A recipe whose evaluation is of another task than ``task`` expects nothing of this one.
    """
    expectation, settings = recipe.get("expect") or {}, recipe.get("evaluation") or {}
    verdict: ExpectedVerdict | None = expectation.get("verdict")
    return verdict if settings.get("task") in (None, task) else None


def recorded_settings(recipe: Mapping[str, Any]) -> EvaluationSettings:
    """Return the evaluation settings of a recorded recipe, all None where it has none."""
    known = {field.name for field in dataclasses.fields(EvaluationSettings)}
    recorded = recipe.get("evaluation") or {}
    return EvaluationSettings(**{k: v for k, v in recorded.items() if k in known})
