"""Settings, each declared once: name, type, bounds, default, and the sentence that documents it.

A group of settings is a frozen pydantic model, and the string under a field is its sentence. The
checks, the messages, the JSON Schema of recipes and the help of the command line derive from that.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import numbers
import os
import re
import reprlib
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias, TypeVar

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from surgeon.errors import SelectionError

LARGEST = 999_999_999
"""The largest dimension or layer that a recipe may name: none that there is, nor any overflow."""

MOST = 2**63 - 1
"""The largest seed."""

FieldPath: TypeAlias = tuple[str | int, ...]
"""The path to a value: names of fields and numbers of list entries."""

_Entry = TypeVar("_Entry")


def _not_empty(entries: tuple[_Entry, ...]) -> tuple[_Entry, ...]:
    if not entries:
        raise ValueError("give one entry or more")
    return entries


def _each_once(entries: tuple[_Entry, ...]) -> tuple[_Entry, ...]:
    if len(set(entries)) != len(entries):
        raise ValueError("name each once")
    return entries


def as_list(value: object) -> object:
    """Return an array or a series, of numpy, torch or pandas, as a list."""
    return value.tolist() if hasattr(value, "tolist") else value


def _plain(value: object) -> object:
    if type(value) is bool or not isinstance(value, numbers.Integral):
        return value
    return int(value)  # of numpy's, say


# Strict: no '1' for 1, and no 1 for true. A whole number is a number all the same.
Number: TypeAlias = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Flag: TypeAlias = Annotated[bool, Field(strict=True)]
Count: TypeAlias = Annotated[int, Field(strict=True, ge=1, le=LARGEST), BeforeValidator(_plain)]
Index: TypeAlias = Annotated[int, Field(strict=True, ge=0, le=LARGEST), BeforeValidator(_plain)]
Seed: TypeAlias = Annotated[int, Field(strict=True, ge=0, le=MOST), BeforeValidator(_plain)]
# A min_length would count the entries without those that are wrong, and be one more error.
Some: TypeAlias = Annotated[
    tuple[_Entry, ...], Field(json_schema_extra={"minItems": 1}), AfterValidator(_not_empty)
]
Distinct: TypeAlias = Annotated[
    Some[_Entry], Field(json_schema_extra={"uniqueItems": True}), AfterValidator(_each_once)
]

_ADVICE = {  # for pydantic's types of errors, with what it knows of each
    "int_type": "give a whole number",
    "float_type": "give a number",
    "finite_number": "give a finite number",
    "bool_type": "give true or false",
    "string_type": "give text",
    "string_pattern_mismatch": "give text",
    "tuple_type": "give a list, such as [a, b]",
    "model_type": "give fields, such as name: value",
    "dict_type": "give fields, such as name: value",
    "greater_than": "give a number above {gt:g}",
    "greater_than_equal": "give a number of {ge:g} or more",
    "less_than": "give a number below {lt:g}",
    "less_than_equal": "give a number of {le:,} at most",
}
_CONTRADICTION = "contradiction"


_readers: Callable[[Any], TypeAdapter[Any]] = functools.cache(TypeAdapter)


def reader(kind: type[_Entry]) -> TypeAdapter[_Entry]:
    """Return what reads a class from plain values, which takes long to make and is made once."""
    return _readers(kind)


@dataclass(frozen=True)
class Problem:
    """What is wrong with the setting at a path, or (``in_name``) with its name."""

    path: FieldPath
    message: str
    in_name: bool = False

    def __str__(self) -> str:
        name = ".".join(map(str, self.path))
        return f"`{name}`: {self.message}" if name else self.message


class SettingsError(SelectionError):
    """Settings that are wrong or contradict each other; ``problems`` has all of them."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(str(problems[0]))
        self.problems = tuple(problems)


class SettingsModel(BaseModel):
    """A group of settings, frozen.

    Raises:
        SettingsError: a value is not one of its setting's, or settings contradict each other.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, defer_build=True
    )

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise SettingsError(_problems(error, type(self))) from error

    # Else pydantic calls it for a group within a group, whose errors would lose their path.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def read(cls, values: object, folder: Path | None = None) -> Self:
        """Make a group of what a YAML or JSON file says; its paths start from ``folder``.

        Raises:
            SettingsError: as above.
        """
        try:
            return cls.model_validate(values, context=folder)
        except ValidationError as error:
            raise SettingsError(_problems(error, cls)) from error

    def __repr_args__(self) -> Iterator[tuple[str, Any]]:
        return ((name, value) for name, value in self if name in self.model_fields_set)

    def given(self) -> dict[str, Any]:
        """Return the settings that are not None, by name."""
        return {name: value for name, value in self if value is not None}


def contradiction(problems: Iterable[Problem]) -> ValidationError:
    """Return what a validator of a group raises that finds several things wrong at once."""
    return ValidationError.from_exception_data(
        _CONTRADICTION,
        [
            {
                "type": PydanticCustomError(_CONTRADICTION, "{problem}", {"problem": problem}),
                "loc": problem.path,
                "input": None,
            }
            for problem in problems
        ],
    )


def shown(value: object) -> str:
    """Return a value as an error shows it, in bounded length."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    plain = isinstance(value, (str, int, float, list, tuple, dict))
    return _repr.repr(value) if plain else str(value).partition("\n")[0]


class _Bounded(reprlib.Repr):
    """Bounded, because a few lines with YAML aliases unfold to billions of values."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxlist, self.maxdict, self.maxstring = 2, 4, 3, 60

    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to write one of thousands of digits, which hexadecimal YAML can hold.
        return super().repr_int(x, level) if abs(x) <= MOST else "a number of over 18 digits"


_repr = _Bounded()


def _problems(error: ValidationError, group: type[BaseModel]) -> tuple[Problem, ...]:
    return tuple(_problem(details, group) for details in error.errors(include_url=False))


def _problem(error: ErrorDetails, group: type[BaseModel]) -> Problem:
    path, kind, value, context = error["loc"], error["type"], error["input"], error.get("ctx", {})
    match kind:
        case "contradiction":
            return Problem(path, context["problem"].message, context["problem"].in_name)
        case "missing":
            return Problem(path, "is missing")
        case "extra_forbidden":
            known = list(_group_at(path[:-1], group).model_fields)
            return Problem(path, f"there is no such field{_near(path[-1], known)}", in_name=True)
        case "literal_error":
            known = context["expected"].replace(" or ", ", ").replace("'", "").split(", ")
            advice = f"there is {', '.join(known)}"
            return Problem(path, f"{advice}; found {shown(value)}{_near(value, known)}")
        case "value_error":
            advice = str(context["error"])
        case _:
            advice = _ADVICE.get(kind, error["msg"]).format(**context)
    return Problem(path, f"{advice}; found {shown(value)}")


def _near(name: object, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(str(name), known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _group_at(path: FieldPath, group: type[BaseModel]) -> type[BaseModel]:
    for name in path:
        if isinstance(name, str):
            group = next(_groups_in(group.model_fields[name].annotation))
    return group


def _groups_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        yield from _groups_in(part)


# What does for a kind that a function asks for: paths and numbers of other libraries.
_TAKEN: Mapping[Any, Any] = {
    Path: os.PathLike,
    bool: (bool, np.bool_),
    int: numbers.Integral,
    float: numbers.Real,
}
_MODULES = re.compile(r"\b[\w.]+\.(?=[A-Z])")


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that refuses arguments of another kind than its annotations name.

    Raises:
        SettingsError: when called, for the first of them.
    """
    names, hints = inspect.signature(function).parameters, typing.get_type_hints(function)

    @functools.wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        for name, value in (*zip(names, args, strict=False), *named.items()):
            if name in names and not _is_a(hints[name], value):
                wanted = _MODULES.sub("", inspect.formatannotation(hints[name]))
                raise SettingsError([Problem((name,), f"give {wanted}; found {_kind_of(value)}")])
        return function(*args, **named)

    call.__module__ = "surgeon"  # where a pickle of it is to look
    return call


def _is_a(kind: Any, value: object) -> bool:
    whole, parts = typing.get_origin(kind) or kind, typing.get_args(kind)
    if whole in (typing.Union, types.UnionType):
        return any(_is_a(part, value) for part in parts)
    if whole in (Sequence, Iterable):
        entries = as_list(value)
        if not isinstance(entries, Iterable) or isinstance(entries, str | bytes):
            return False
        once = not isinstance(entries, Collection)
        return once or all(_is_a(parts[0], entry) for entry in entries)
    if kind is Any or (isinstance(value, bool) and whole in (int, float)):
        return kind is Any
    # Of a Literal, the function says which there are.
    return isinstance(value, str if whole is Literal else _TAKEN.get(whole, whole))


def _kind_of(value: object) -> str:
    entries = {type(one).__name__ for one in value} if isinstance(value, list | tuple) else ()
    return type(value).__name__ + (f" of {', '.join(sorted(entries))}" if entries else "")
