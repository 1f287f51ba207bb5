"""What a person asks for: which dimensions, what to do to them, in which sites and layers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from surgeon.architectures import Role
from surgeon.errors import SelectionError
from surgeon.outliers.options import SIGMA
from surgeon.surgery.expectation import EvaluationSettings, Expectation

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Mode: TypeAlias = Literal["zero", "scale", "mean"]
Param: TypeAlias = Literal["gain", "bias"]

PARAMS: tuple[Param, ...] = ("gain", "bias")

_PLURALS: dict[Param, str] = {"gain": "gains alone", "bias": "biases alone"}
_Name = TypeVar("_Name", bound=str)
_MAX_NUMBERS = 1_000_000
_MAX_DIGITS = 9


@dataclass(frozen=True)
class Contradiction:
    """What fields of a recipe cannot say together, and the path to one of them."""

    place: tuple[str | int, ...]
    message: str


class RecipeError(SelectionError):
    """The fields of a recipe contradict each other; ``found`` says where, one by one."""

    def __init__(self, found: tuple[Contradiction, ...]) -> None:
        super().__init__(found[0].message)
        self.found = found


@dataclass(frozen=True)
class Recipe:
    """An operation, independent of the checkpoint it is done to.

    Exactly one of ``dims``, ``remove_outliers`` and ``random`` chooses the dimensions: the named
    ones, the N strongest that meet the criterion of ``method``, or N drawn with ``seed``.
    ``relax`` takes the N strongest even if they do not meet the criterion. ``sigma``,
    ``min_layers`` and ``min_damage`` (None: the method's own rule) are settings of the methods
    that take them. ``layers`` limits the edit to those layers (None: all); ``sites`` says which
    norms, "all" those that there are. ``model`` says for people which checkpoint the dims were
    found on; ``evaluation`` and ``expect`` are how to measure the operation, and what that should
    show.

    Raises:
        RecipeError: the fields contradict each other.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (pydantic reads it off the class)

    dims: tuple[int, ...] | None = None
    remove_outliers: int | None = None
    random: int | None = None
    seed: int = 0
    method: str = "layernorm"
    sigma: float = SIGMA
    min_layers: float | None = None
    min_damage: float | None = None
    relax: bool = False
    mode: Mode = "zero"
    factor: float | None = None
    params: tuple[Param, ...] = PARAMS
    layers: tuple[int, ...] | None = None
    sites: tuple[Role | Literal["all"], ...] = ("output",)
    description: str = ""
    model: str = ""
    evaluation: EvaluationSettings | None = None
    expect: Expectation | None = None

    def __post_init__(self) -> None:
        if found := tuple(self._contradictions()):
            raise RecipeError(found)

    def _contradictions(self) -> Iterator[Contradiction]:
        choices = (self.dims, self.remove_outliers, self.random)
        if sum(choice is not None for choice in choices) != 1:
            yield _about(
                None,
                "say which dimensions in exactly one way: --remove-outliers N, --dims LIST, "
                "--random N or --recipe FILE",
            )
        if self.dims is not None and (not self.dims or len(set(self.dims)) != len(self.dims)):
            yield _about("dims", f"--dims {_join(self.dims)}: name each dimension once, and one")
        for field in ("remove_outliers", "random"):
            count = getattr(self, field)
            if count is not None and count < 1:
                option = f"--{field.replace('_', '-')}"
                yield _about(field, f"{option} {count}: give a number of dimensions, 1 or more")
        if self.seed < 0:
            yield _about("seed", f"--seed {self.seed}: give a number of 0 or more")
        if (self.mode == "scale") != (self.factor is not None):
            yield _about("factor", "--mode scale and --factor F go together, and only together")
        for field in ("factor", "sigma", "min_layers", "min_damage"):
            value = getattr(self, field)
            if value is not None and not math.isfinite(value):
                option = f"--{field.replace('_', '-')}"
                yield _about(field, f"{option} {value}: give a finite number")
        for field in ("params", "sites", "layers"):
            if getattr(self, field) == ():
                yield _about(field, f"--{field}: needs one entry or more")
        yield from self._nested_contradictions()

    def _nested_contradictions(self) -> Iterator[Contradiction]:
        if self.evaluation is not None:
            for field, message in self.evaluation.contradictions():
                yield Contradiction(("evaluation", field), f"evaluation.{field}: {message}")
        for number, figure in enumerate(self.expect.published if self.expect else ()):
            for field, message in figure.contradictions():
                place = ("expect", "published", number, field)
                yield Contradiction(place, f"expect.published.{number}.{field}: {message}")

    @property
    def summary(self) -> str:
        """The operation in a few words."""
        if self.dims is not None:
            which = f"dims {_join(self.dims)}"
        elif self.random is not None:
            which = f"{self.random} random dims"
        else:
            which = f"{self.remove_outliers} strongest by {self.method}"
        change = self.mode if self.factor is None else f"{self.mode} by {self.factor:g}"
        limits = (
            (_PLURALS[self.params[0]], len(self.params) == 1),
            (" and ".join(self.sites), self.sites != ("output",)),
            (f"layers {_join(self.layers or ())}", self.layers is not None),
        )
        return ", ".join((f"{which}: {change}", *(text for text, there in limits if there)))

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON values; ``recipe_from_json`` takes them back."""
        return dataclasses.asdict(self)


def recipe_from_json(fields: object, source: str) -> Recipe:
    """Check untrusted fields and make a recipe of them; ``source`` is named in errors.

    Raises:
        SelectionError: a field is unknown, missing or of the wrong type.
    """
    import pydantic

    try:
        return _schema().validate_python(fields)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "recipe"
        raise SelectionError(f"{source}: {where}: {first['msg']}") from error


@cache
def _schema() -> TypeAdapter[Recipe]:
    # Made once: it takes milliseconds, and a sweep checks a recipe for each of its cells.
    import pydantic

    return pydantic.TypeAdapter(Recipe)


def parse_numbers(option: str, text: str) -> tuple[int, ...]:
    """Parse ``308,381`` or ``0-5,11`` into numbers, in the order written.

    Raises:
        SelectionError: it is not such a list.
    """
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        ends = (first, last) if dash else (first,)
        if not all(end.isascii() and end.isdigit() for end in ends):
            raise SelectionError(f"{option} {text!r}: give numbers and ranges such as 0-5,11")
        if too_large := [end for end in ends if len(end) > _MAX_DIGITS]:
            raise SelectionError(f"{option} {part.strip()}: {too_large[0]} is beyond any model")
        low, high = int(ends[0]), int(ends[-1])
        if high < low:
            raise SelectionError(f"{option} {part.strip()}: ends below its start")
        if high - low > _MAX_NUMBERS:
            raise SelectionError(f"{option} {part.strip()}: more than {_MAX_NUMBERS:,} numbers")
        numbers.extend(range(low, high + 1))
    return tuple(numbers)


def parse_names(option: str, text: str, known: tuple[_Name, ...]) -> tuple[_Name, ...]:
    """Parse ``gain,bias`` into names out of ``known``, each once, in the order of ``known``.

    Raises:
        SelectionError: a name is not known.
    """
    asked = {part.strip() for part in text.split(",")}
    if unknown := sorted(asked.difference(known)):
        raise SelectionError(f"{option} {unknown[0]!r}: there is {', '.join(known)}")
    return tuple(name for name in known if name in asked)


def _about(field: str | None, message: str) -> Contradiction:
    return Contradiction((field,) if field else (), message)


def _join(numbers: tuple[int, ...]) -> str:
    return ",".join(map(str, numbers))
