"""What a person asks for: which dimensions, what to do to them, and what that should show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from surgeon.edit.changes import Mode
from surgeon.errors import SelectionError
from surgeon.families import Role
from surgeon.ranking import DETECTORS, MEASURED
from surgeon.ranking.ranking import SIGMA
from surgeon.settings import (
    Count,
    Distinct,
    Flag,
    Index,
    Number,
    Problem,
    Seed,
    SettingsError,
    SettingsModel,
    as_list,
    contradiction,
)
from surgeon.tasks.registry import EvaluationSettings

if TYPE_CHECKING:
    Method: TypeAlias = str
else:
    Method = Literal[tuple(sorted(DETECTORS))]

Param: TypeAlias = Literal["gain", "bias"]
Grade: TypeAlias = Literal["S", "F", "N", "D", "O"]
ExpectedVerdict: TypeAlias = Literal["degraded", "intact"]

PARAMS: tuple[Param, ...] = ("gain", "bias")

GRADES: dict[Grade, str] = {
    "S": "seen in a primary text, in authors' code or in their stored output",
    "F": "read off an authors' figure, so approximate",
    "N": "seen only in notes on the paper",
    "D": "derived",
    "O": "measured for this project",
}
"""How well a published figure is known."""

_PLURALS: dict[Param, str] = {"gain": "gains alone", "bias": "biases alone"}
WAYS = ("dims", "remove_outliers", "random")
_MAX_NUMBERS = 1_000_000
_MAX_DIGITS = 9


def _count_or_share(layers: float) -> float:
    if not (0 < layers < 1 or (layers >= 1 and layers % 1 == 0)):
        raise ValueError("give a count, or a share of the layers below 1, such as 0.5")
    return layers


Dims: TypeAlias = Annotated[Distinct[Index], BeforeValidator(as_list)]
Text: TypeAlias = Annotated[str, Field(pattern=r"\S")]
Layers: TypeAlias = Annotated[
    Number,
    Field(
        json_schema_extra={
            "anyOf": [
                {"exclusiveMinimum": 0, "exclusiveMaximum": 1},
                {"type": "integer", "minimum": 1},
            ]
        }
    ),
    AfterValidator(_count_or_share),
]


class Published(SettingsModel):
    """A figure that somebody reported, and how well it is known.

    A finding that was reported in words has no numbers.
    """

    what: Text
    """What was measured, and in which unit."""
    grade: Annotated[
        Grade,
        Field(
            description="How well the figure is known. "
            + "; ".join(f"{grade}: {meaning}" for grade, meaning in GRADES.items())
            + "."
        ),
    ]
    source: Text
    """Who reported it, and where."""
    before: Number | None = None
    """Of the full model."""
    after: Number | None = None
    """Of the edited model."""
    within: Number | None = None
    """How far before and after may be off."""
    dims: Dims | None = None
    """The dimensions it is about, where they are not all of the recipe's."""


class Expectation(SettingsModel):
    """What an edit should show: the verdict of ``eval``, and what others have reported."""

    verdict: ExpectedVerdict | None = None
    """The verdict that surgeon eval should reach."""
    published: tuple[Published, ...] = ()
    """Figures that others have reported."""


class Recipe(SettingsModel):
    """An edit, independent of the checkpoint that it is done to.

    Exactly one of ``dims``, ``remove_outliers`` and ``random`` chooses the dimensions: the named
    ones, the N strongest that meet the criterion of ``method`` (None: ablation), or N drawn with
    ``seed``.
    ``sigma``, ``min_layers`` and ``min_damage`` (None: the method's own rule) are settings of the
    methods that take them.
    """

    dims: Dims | None = None
    """Edit these dimensions, counted from 0."""
    remove_outliers: Count | None = None
    """Edit the N strongest outliers of the criterion."""
    random: Count | None = None
    """Edit N dimensions drawn with `seed`."""
    seed: Seed = 0
    """For `random`."""
    method: Method | None = None
    """What ranks: ablation measures what removals do, in PyTorch; activations and gradient run the
    model too, and layernorm and layernorm-count read only the weights."""
    sigma: Annotated[Number, Field(gt=0)] = SIGMA
    """Standard deviations beyond which a gain or bias is flagged."""
    min_layers: Layers | None = None
    """Layers that must flag an outlier: a count, or a share of all layers below 1."""
    min_damage: Annotated[Number, Field(ge=0)] | None = None
    """The least damage that makes an outlier, for ablation: in nats per token, or in drift for a
    model without a head."""
    relax: Flag = False
    """Take the N strongest, outliers or not."""
    mode: Mode = "zero"
    """Set to zero, scale by `factor`, or set to the mean of the vector."""
    factor: Number | None = None
    """For `mode` scale."""
    params: Distinct[Param] = PARAMS
    """Which of gain and bias to edit."""
    layers: Dims | None = None
    """Only these layers, counted from 0."""
    sites: Distinct[Literal[Role, "all"]] = ("output",)
    """Which norms: output (the last operation of a layer), attention, embeddings, final; all."""
    description: str = ""
    """What the operation is, for people."""
    model: str = ""
    """The checkpoint that the dimensions were found on."""
    evaluation: EvaluationSettings | None = None
    """How surgeon eval is to measure the operation."""
    expect: Expectation | None = None
    """What that should show."""

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if problems := tuple(self._contradictions()):
            raise contradiction(problems)
        return self

    def _contradictions(self) -> Iterator[Problem]:
        if sum(getattr(self, way) is not None for way in WAYS) != 1:
            ways = "`remove_outliers` N, `dims` LIST or `random` N"
            yield Problem((), f"say which dimensions in exactly one way: {ways}")
        if (self.mode == "scale") != (self.factor is not None):
            yield Problem(("factor",), "`mode` scale and `factor` go together, and only together")

    @property
    def summary(self) -> str:
        """The edit in a few words."""
        if self.dims is not None:
            which = f"dims {','.join(map(str, self.dims))}"
        elif self.random is not None:
            which = f"{self.random} random dims"
        else:
            which = f"{self.remove_outliers} strongest by {self.method or MEASURED}"
        parts = [
            f"{which}: {self.mode}" + (f" by {self.factor:g}" if self.factor is not None else "")
        ]
        if len(self.params) == 1:
            parts.append(_PLURALS[self.params[0]])
        if self.sites != ("output",):
            parts.append(" and ".join(self.sites))
        if self.layers is not None:
            numbers = ",".join(map(str, self.layers))
            parts.append(f"layer{'s' * (len(self.layers) > 1)} {numbers}")
        return ", ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as plain JSON values; ``read`` takes them back."""
        return self.model_dump()


def recipe_from_json(values: object, source: str) -> Recipe:
    """Check untrusted values and make a recipe of them; ``source`` is named in errors.

    Raises:
        SelectionError: a value is unknown, missing or wrong.
    """
    try:
        return Recipe.read(values)
    except SettingsError as error:
        raise SelectionError(f"{source}: {error}") from error


def expected_verdict(recipe: Mapping[str, Any], task: str) -> ExpectedVerdict | None:
    """Return the verdict that a recorded recipe expects of an evaluation; None: it names none.

    A recipe whose evaluation is of another task than ``task`` expects nothing of this one.
    """
    expectation, settings = recipe.get("expect") or {}, recipe.get("evaluation") or {}
    verdict: ExpectedVerdict | None = expectation.get("verdict")
    return verdict if settings.get("task") in (None, task) else None


def recorded_settings(recipe: Mapping[str, Any]) -> EvaluationSettings:
    """Return the evaluation settings of a recorded recipe, all None where it has none."""
    return EvaluationSettings.read(recipe.get("evaluation") or {})


def parse_numbers(text: str) -> tuple[int, ...]:
    """Parse ``308,381`` or ``0-5,11`` into numbers, in the order written.

    Raises:
        ValueError: it is not such a list; says what to give.
    """
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        ends = (first, last) if dash else (first,)
        if not all(end.isascii() and end.isdigit() for end in ends):
            raise ValueError("give numbers and ranges such as 0-5,11")
        if too_long := [end for end in ends if len(end) > _MAX_DIGITS]:
            raise ValueError(f"{too_long[0]} is beyond any model")
        low, high = int(ends[0]), int(ends[-1])
        if high < low:
            raise ValueError(f"{part.strip()} ends below its start")
        if high - low > _MAX_NUMBERS:
            raise ValueError(f"{part.strip()} has more than {_MAX_NUMBERS:,} numbers")
        numbers.extend(range(low, high + 1))
    return tuple(numbers)
