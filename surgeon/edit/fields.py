"""Plain values, as YAML or JSON has them → a dataclass, or all that is wrong with them in words."""

from __future__ import annotations

import dataclasses
import difflib
import reprlib
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar

from surgeon.edit.yaml_file import Place

if TYPE_CHECKING:
    from pydantic import TypeAdapter


_Value = TypeVar("_Value")

LARGEST = 999_999_999
"""The largest dimension or layer that a recipe may name: none that there is, nor any overflow."""

MOST = 2**63 - 1
"""The largest seed."""

_WANTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "mapping_type": "fields",
    "dict_type": "fields",
    "dataclass_type": "fields",
}
_LISTS = {
    "dims": "[308, 381]",
    "layers": "[0, 11]",
    "params": "[gain, bias]",
    "sites": "[output]",
    "published": "[{what: a loss, grade: O, source: mine}]",
    "models": "[bert-base-uncased]",
    "selections": "[dims: [308, 381]]",
    "operations": "[mode: mean]",
    "tasks": "[task: mlm]",
    "seeds": "[0, 1]",
}
_FIELDS = {
    "evaluation": "task: mlm",
    "tasks": "task: mlm",
    "expect": "verdict: degraded",
    "published": "what: a loss",
    "models": "model: bert-base-uncased",
    "selections": "dims: [308, 381]",
    "operations": "mode: mean",
    "recipe": "dims: [308, 381]",
    "grid": "models: [bert-base-uncased]",
}


class _Bounded(reprlib.Repr):
    """Shows values in bounded length, as a few lines with YAML aliases unfold to billions."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxlist, self.maxdict, self.maxstring = 2, 4, 3, 60

    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to write one of thousands of digits, which hexadecimal YAML can hold.
        return super().repr_int(x, level) if abs(x) <= MOST else "a number of over 18 digits"


_repr = _Bounded()


class Exact:
    """Marks a field's type that takes no other type's values: no '1' for 1, no 1 for true.

    A whole number is a number all the same.
    """

    def __get_pydantic_core_schema__(self, source: object, handler: Any) -> Any:
        """Tell pydantic, which this module needs not import for that."""
        return {**handler(source), "strict": True}


Whole: TypeAlias = Annotated[int, Exact()]
Number: TypeAlias = Annotated[float, Exact()]
Flag: TypeAlias = Annotated[bool, Exact()]


@dataclass(frozen=True)
class Complaint:
    """What is wrong with the value at a path, or with its key."""

    place: Place
    message: str
    key: bool = False


def made_of(kind: type[_Value], content: object) -> tuple[_Value | None, tuple[Complaint, ...]]:
    """Make a value of a dataclass from plain values, or tell all that is wrong with them."""
    import pydantic

    from surgeon.edit.recipe import RecipeError

    asked: Any = kind  # mypy takes the type of a type to have no hash
    value: _Value | None = None
    complaints: tuple[Complaint, ...] = ()
    try:
        value = _adapter(asked).validate_python(content)
    except pydantic.ValidationError as error:
        complaints = tuple(_complaints(kind, content, error.errors(include_url=False)))
    except RecipeError as error:
        complaints = tuple(Complaint(c.place, c.message) for c in error.found)
    return value, complaints


def no_such_field(name: object, place: Place, known: Sequence[str]) -> str:
    """Return what to say of a field that there is not, near which there may be one."""
    near = difflib.get_close_matches(str(name), known, n=1)
    return f"{dotted(place)}: there is no such field" + (
        f"; did you mean {near[0]}?" if near else ""
    )


def found(value: object) -> str:
    """Return a value as an error shows it, in bounded length."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        value = list(value)
    plain = isinstance(value, (str, int, float, list, dict))
    return _repr.repr(value) if plain else str(value)


def dotted(place: Place, default: str = "recipe") -> str:
    """Return a path as people write it."""
    return ".".join(str(part) for part in place) or default


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    # Made once: it takes milliseconds, and a sweep checks a recipe for each of its cells.
    import pydantic

    return pydantic.TypeAdapter(kind)


def _complaints(
    kind: type[Any], content: object, errors: Sequence[Mapping[str, Any]]
) -> Iterator[Complaint]:
    top = kind.__name__.lower()
    places = [_in_content(error, content) for error in errors]
    for place, error in zip(places, errors, strict=True):
        if any(len(other) > len(place) and other[: len(place)] == place for other in places):
            continue  # of a value that may be of several types, only one of which it resembles
        if error["type"] == "unexpected_keyword_argument":
            known = _field_names(kind, place[:-1])
            yield Complaint(place, no_such_field(place[-1], place, known), key=True)
        elif error["type"] == "missing":
            yield Complaint(place, f"{dotted(place, top)}: is missing")
        else:
            yield Complaint(place, f"{dotted(place, top)}: {_advice(place, top, error)}")


def _advice(place: Place, top: str, error: Mapping[str, Any]) -> str:
    names = [part for part in place if isinstance(part, str)]
    name = names[-1] if names else top
    type_, value = error["type"], error["input"]
    if type_ == "literal_error":
        known = error["ctx"]["expected"].replace(" or ", ", ").replace("'", "")
        near = difflib.get_close_matches(str(value), known.split(", "), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"there is {known}; found {found(value)}{hint}"
    if type_ not in _WANTED:
        return f"{error['msg']}; found {found(value)}"
    examples = {"tuple_type": _LISTS}.get(type_, _FIELDS if _WANTED[type_] == "fields" else {})
    example = f", such as {examples[name]}" if name in examples else ""
    if not place and value is None:
        return f"the file is empty; give fields{example}"
    return f"give {_WANTED[type_]}{example}; found {found(value)}"


def _in_content(error: Mapping[str, Any], content: Any) -> Place:
    """Return where an error is, without the names of types, of which pydantic tells one in it."""
    place: list[str | int] = []
    for part in error["loc"]:
        in_list = isinstance(content, Sequence) and isinstance(part, int) and part < len(content)
        if in_list or (isinstance(content, Mapping) and part in content):
            content = content[part]
            place.append(part)
    return (*place, error["loc"][-1]) if error["type"] == "missing" else tuple(place)


def _field_names(kind: type[Any], place: Place) -> list[str]:
    """Return the fields of the dataclass that is at a path of another."""
    for part in place:
        if isinstance(part, str):
            kind = next(_dataclasses(typing.get_type_hints(kind)[part]))
    return [field.name for field in dataclasses.fields(kind)]


def _dataclasses(hint: Any) -> Iterator[type[Any]]:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        yield hint
    for part in typing.get_args(hint):
        yield from _dataclasses(part)
