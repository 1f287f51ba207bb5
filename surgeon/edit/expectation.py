"""What belongs to an operation beside itself: how to measure it, and what that should show."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from surgeon.edit.fields import (
    LARGEST,
    MOST,
    Flag,
    Number,
    Whole,
    found,
)

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


def _says(about: str, **limits: Any) -> dict[str, Any]:
    """Return what describes a setting: its sentence, and its limits as JSON Schema has them."""
    return {"about": about, "limits": limits}


@dataclass(frozen=True)
class TaskOptions:
    """What a user may set about a task; None: the task's default.

    ``surgeon eval`` has an option for each, and a recipe's evaluation a field.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (pydantic reads it off the class)

    mask_rate: Number | None = field(
        default=None,
        metadata=_says(
            "Share of tokens masked, replaced or asked for.", exclusiveMinimum=0, exclusiveMaximum=1
        ),
    )
    masking: Literal["all", "bert"] | None = field(
        default=None,
        metadata=_says("Hide every chosen token (all), or 80 in 100 and change 10 (bert)."),
    )
    block: Whole | None = field(
        default=None,
        metadata=_says(
            "Blocks of N tokens of the corpus, in place of single texts.",
            minimum=1,
            maximum=LARGEST,
        ),
    )
    stride: Whole | None = field(
        default=None,
        metadata=_says(
            "Tokens by which windows over a long text move.", minimum=1, maximum=LARGEST
        ),
    )
    bos: Flag | None = field(
        default=None,
        metadata=_says(
            "Put the tokenizer's BOS token before each text, in place of its other special ones."
        ),
    )
    document: Flag | None = field(
        default=None, metadata=_says("Read a text file as one text, not as a text per line.")
    )
    text_column: str | None = field(
        default=None, metadata=_says("Column of the text, by name or number.")
    )
    pair_column: str | None = field(default=None, metadata=_says("Column of the second text."))
    label_column: str | None = field(default=None, metadata=_says("Column of the label or score."))

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Yield the fields that no evaluation can take, each with what is wrong."""
        if self.mask_rate is not None and not 0 < self.mask_rate < 1:
            yield "mask_rate", f"{self.mask_rate:g}: give a share between 0 and 1"
        for name in ("block", "stride"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= LARGEST:
                yield name, f"{found(value)}: give a number of 1 or more"

    def given(self) -> dict[str, Any]:
        """Return the settings that are there, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class EvaluationSettings(TaskOptions):
    """The evaluation that belongs to an operation; None leaves a setting to ``evaluate``.

    ``task`` is the one that the settings and the expectation are about: another task makes them
    meaningless. In a recipe's file the path of ``data`` starts from that file.
    """

    task: str | None = field(
        default=None, metadata=_says("The task that the settings and the expectation are about.")
    )
    data: str | None = field(
        default=None,
        metadata=_says(
            "A file of texts or of labelled rows; its path starts from this file. Or hf:org/name."
        ),
    )
    controls: Whole | None = field(
        default=None,
        metadata=_says("How many random removals to compare with.", minimum=1, maximum=LARGEST),
    )
    seed: Whole | None = field(
        default=None,
        metadata=_says("For masks, controls and the interval.", minimum=0, maximum=MOST),
    )
    dose: Flag | None = field(
        default=None, metadata=_says("Score the first dims alone too: one, two, and so on.")
    )
    until_certain: Flag | None = field(
        default=None, metadata=_says("Stop as soon as the verdict is settled.")
    )

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Yield the fields that no evaluation can take, each with what is wrong."""
        from surgeon.tasks.registry import TASKS

        yield from super().contradictions()
        if self.task is not None and self.task not in TASKS:
            yield "task", f"{self.task!r} is no task; there is {', '.join(TASKS)}"
        if self.controls is not None and not 1 <= self.controls <= LARGEST:
            yield "controls", f"{found(self.controls)}: give a number of 1 or more"
        if self.seed is not None and not 0 <= self.seed <= MOST:
            yield "seed", f"{found(self.seed)}: give a number of 0 or more, to {MOST} at most"


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
