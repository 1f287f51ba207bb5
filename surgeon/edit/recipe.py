"""What a person asks for: which dimensions, what to do to them, in which sites and layers."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from surgeon.edit.expectation import (
    EvaluationSettings,
    Expectation,
    wrong_numbers,
)
from surgeon.edit.fields import (
    LARGEST,
    MOST,
    Flag,
    Number,
    Whole,
    dotted,
    found,
    made_of,
)
from surgeon.edit.yaml_file import Place
from surgeon.errors import SelectionError
from surgeon.families import Role
from surgeon.model.tensors import round_once
from surgeon.ranking import DETECTORS
from surgeon.ranking.ranking import SIGMA

Mode: TypeAlias = Literal["zero", "scale", "mean"]
Param: TypeAlias = Literal["gain", "bias"]

PARAMS: tuple[Param, ...] = ("gain", "bias")

_PLURALS: dict[Param, str] = {"gain": "gains alone", "bias": "biases alone"}
_Name = TypeVar("_Name", bound=str)
_MAX_NUMBERS = 1_000_000
_MAX_DIGITS = 9


@dataclass(frozen=True)
class Contradiction:
    """What fields of a recipe cannot say, and the path to one of them.

    ``message`` is for who writes a file, ``option`` for who gives options on the command line.
    """

    place: Place
    message: str
    option: str


class RecipeError(SelectionError):
    """The fields of a recipe contradict each other; ``found`` says where, one by one."""

    def __init__(self, contradictions: tuple[Contradiction, ...]) -> None:
        super().__init__(contradictions[0].option)
        self.found = contradictions


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

    dims: tuple[Whole, ...] | None = None
    remove_outliers: Whole | None = None
    random: Whole | None = None
    seed: Whole = 0
    method: str = "layernorm"
    sigma: Number = SIGMA
    min_layers: Number | None = None
    min_damage: Number | None = None
    relax: Flag = False
    mode: Mode = "zero"
    factor: Number | None = None
    params: tuple[Param, ...] = PARAMS
    layers: tuple[Whole, ...] | None = None
    sites: tuple[Literal[Role, "all"], ...] = ("output",)
    description: str = ""
    model: str = ""
    evaluation: EvaluationSettings | None = None
    expect: Expectation | None = None

    def __post_init__(self) -> None:
        if contradictions := tuple(self._contradictions()):
            raise RecipeError(contradictions)

    def _contradictions(self) -> Iterator[Contradiction]:
        choices = (self.dims, self.remove_outliers, self.random)
        if sum(choice is not None for choice in choices) != 1:
            say = "say which dimensions in exactly one way: "
            yield Contradiction(
                (),
                f"{say}remove_outliers: N, dims: LIST or random: N",
                f"{say}--remove-outliers N, --dims LIST, --random N or --recipe FILE",
            )
        if (self.mode == "scale") != (self.factor is not None):
            both = "go together, and only together"
            yield Contradiction(
                ("factor",),
                f"mode: scale and factor: F {both}",
                f"--mode scale and --factor F {both}",
            )
        for field, advice in (*self._wrong_lists(), *self._wrong_numbers()):
            value = getattr(self, field)
            option = f"--{field.replace('_', '-')}"
            shown = (_join(value) or "of none") if isinstance(value, tuple) else _plain(value)
            yield Contradiction(
                (field,), f"{field}: {advice}; found {found(value)}", f"{option} {shown}: {advice}"
            )
        yield from self._nested_contradictions()

    def _wrong_lists(self) -> Iterator[tuple[str, str]]:
        for field, what in (("dims", "dimension"), ("layers", "layer")):
            numbers = getattr(self, field)
            if numbers is not None and (advice := wrong_numbers(numbers, what)):
                yield field, advice
        for field in ("params", "sites"):
            names = getattr(self, field)
            if not names or len(set(names)) != len(names):
                yield field, "needs one entry or more, each once"

    def _wrong_numbers(self) -> Iterator[tuple[str, str]]:
        for field in ("remove_outliers", "random"):
            count = getattr(self, field)
            if count is not None and not 1 <= count <= LARGEST:
                yield field, "give a number of dimensions, 1 or more"
        if not 0 <= self.seed <= MOST:
            yield "seed", f"give a number of 0 or more, to {MOST} at most"
        if self.method not in DETECTORS:
            near = difflib.get_close_matches(self.method, DETECTORS, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            yield "method", f"there is {', '.join(sorted(DETECTORS))}{hint}"
        if not (math.isfinite(self.sigma) and self.sigma > 0):
            yield "sigma", "give a positive number of standard deviations"
        least = self.min_layers
        if least is not None and not (0 < least < 1 or (least >= 1 and least % 1 == 0)):
            yield "min_layers", "give a count, or a share of the layers below 1, such as 0.5"
        if self.min_damage is not None and not 0 <= self.min_damage < math.inf:
            yield "min_damage", "give a number of 0 or more"
        if self.factor is not None and not math.isfinite(self.factor):
            yield "factor", "give a finite number"

    def _nested_contradictions(self) -> Iterator[Contradiction]:
        if self.evaluation is not None:
            for field, message in self.evaluation.contradictions():
                yield _nested(("evaluation", field), message)
        for number, figure in enumerate(self.expect.published if self.expect else ()):
            for field, message in figure.contradictions():
                yield _nested(("expect", "published", number, field), message)

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
        evaluation, expect = self.evaluation, self.expect  # asdict is slow: a sweep has many cells
        return {
            **vars(self),
            "evaluation": dataclasses.asdict(evaluation) if evaluation else None,
            "expect": dataclasses.asdict(expect) if expect else None,
        }


def recipe_from_json(fields: object, source: str) -> Recipe:
    """Check untrusted fields and make a recipe of them; ``source`` is named in errors.

    Raises:
        SelectionError: a field is unknown, missing or of the wrong type.
    """
    recipe, complaints = made_of(Recipe, fields)
    if recipe is None:
        raise SelectionError(f"{source}: {complaints[0].message}")
    return recipe


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


def _nested(place: Place, message: str) -> Contradiction:
    told = f"{dotted(place)}: {message}"
    return Contradiction(place, told, told)


def _join(numbers: tuple[object, ...]) -> str:
    return ",".join(map(_plain, numbers))


def _plain(value: object) -> str:
    return value if isinstance(value, str) else found(value)


_Float64: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Operand:
    """What a mode works on: ``old`` are the slices of ``tensor``, stored less ``offset``."""

    old: _Float64
    tensor: npt.NDArray[Any]
    axis: int
    factor: float
    offset: float


def _zero(on: _Operand) -> _Float64:
    return np.full_like(on.old, 0.0 - on.offset)


def _scale(on: _Operand) -> _Float64:
    if not on.offset:
        return on.old * on.factor
    # (old + offset) × factor − offset, in an order in which a factor of 1 changes nothing.
    return on.old * on.factor + on.offset * (on.factor - 1)


def _mean(on: _Operand) -> _Float64:
    # The mean shifts with the offset, which falls out; numpy converts one buffer at a time.
    mean = np.mean(on.tensor, axis=on.axis, keepdims=True, dtype=np.float64)
    return np.broadcast_to(mean, on.old.shape)


MODES: dict[str, Callable[[_Operand], _Float64]] = {
    "zero": _zero,  # the paper's: gain = bias = 0
    "scale": _scale,  # old × factor
    "mean": _mean,  # the mean of the vector over all dimensions (of a weight: for each input)
}


def new_values(
    tensor: npt.NDArray[Any],
    axis: int,
    dims: Sequence[int],
    mode: str,
    factor: float | None,
    offset: float = 0.0,
) -> npt.NDArray[Any]:
    """Return what ``mode`` puts in place of ``tensor``'s slices at ``dims``.

    Args:
        tensor: a vector (hidden,) or a weight whose ``axis`` has the hidden size.
        axis: the axis that the dimension indexes.
        dims: the dimensions.
        mode: a key of ``MODES``.
        factor: what ``scale`` multiplies by.
        offset: what the model adds to the stored values; the mode acts on the sum.

    Returns:
        An array of the tensor's dtype, with ``len(dims)`` entries along ``axis``; computed in
        float64 and rounded once.

    Raises:
        SelectionError: a finite value would become one that the dtype cannot hold.
    """
    old = np.take(tensor, dims, axis=axis).astype(np.float64)
    operand = _Operand(old, tensor, axis, factor or 0.0, offset)
    new = round_once(MODES[mode](operand), tensor.dtype)
    overflow = np.isfinite(old) & ~np.isfinite(new.astype(np.float64))
    if overflow.any():
        raise SelectionError(
            f"--mode {mode}: the result does not fit {tensor.dtype}; use a smaller --factor"
        )
    return new
