"""A pickle's instructions, followed without effect: nothing is imported, called or built by them.

What a pickle would call stands in the result as a ``Call``, by name. The reader knows the
instructions that the files of PyTorch are made of and refuses the others.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

_MOST_STEPS = 4_000_000  # some 60 for a tensor, and each may make an object
_SHOWN = 60  # characters of a name in an error

# Pushed as they are: the argument of the instruction, or what it stands for.
_ARGUMENTS = (
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
    "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
)  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_CONTAINERS: dict[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_DICT = "collections OrderedDict"
_KNOWN = re.compile(
    rf"{_DICT}|torch(\.cuda|\.storage)? \w+|torch\._utils _rebuild_\w+|"
    r"torch\._tensor _rebuild_from_type_v2|torch\.nn\.parameter Parameter|"
    r"torch\.serialization _get_layout"
)


@dataclass(frozen=True)
class Global:
    """What a pickle would import: the module, a blank and the name."""

    name: str


@dataclass(frozen=True)
class Call:
    """What a pickle would call, and with what."""

    function: str
    arguments: tuple[Any, ...]


def read_pickle(file: IO[bytes], persistent: Callable[[Any], Any]) -> Any:
    """Follow one pickle to its end and return what it holds.

    Args:
        file: stands at its start, and afterwards at its end.
        persistent: what stands for an object that the pickle keeps outside, by its id.

    Raises:
        ValueError, TypeError, LookupError: it is damaged, or does more than name tensors.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def popped(start: int | None = None) -> list[Any]:
        start = marks.pop() if start is None else start
        values = stack[start:]
        del stack[start:]
        return values

    instructions: Any = pickletools.genops(file)
    for step, (operation, argument, _) in enumerate(instructions):
        if step > _MOST_STEPS:
            raise ValueError(f"a pickle of more than {_MOST_STEPS:,} instructions")
        name: str = operation.name
        match name:
            case "PROTO" | "FRAME":
                pass
            case _ if name in _ARGUMENTS:
                stack.append(argument)
            case _ if name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            case _ if name in _CONTAINERS:
                stack.append(_CONTAINERS[name]())
            case _ if name in _TUPLES:
                stack.append(tuple(popped(len(stack) - _TUPLES[name])))
            case "MARK":
                marks.append(len(stack))
            case "TUPLE":
                stack.append(tuple(popped()))
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[int(argument)] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[int(argument)])
            case "GLOBAL":
                stack.append(_global(argument))
            case "STACK_GLOBAL":
                stack.append(_global(" ".join(popped(len(stack) - 2))))
            case "BINPERSID":
                stack.append(persistent(stack.pop()))
            case "REDUCE":
                function, arguments = popped(len(stack) - 2)
                stack.append(_call(function, arguments))
            case "BUILD":  # attributes, such as the versions of modules
                stack.pop()
            case "SETITEM" | "SETITEMS":
                values = popped(len(stack) - 2 if name == "SETITEM" else None)
                _set_items(stack[-1], values[::2], values[1::2])
            case "APPEND" | "APPENDS":
                values = popped(len(stack) - 1 if name == "APPEND" else None)
                list.extend(stack[-1], values)
            case "STOP":
                return stack.pop()
            case _:
                raise ValueError(f"the instruction {name} in it")
    raise ValueError("it has no end")


def _global(name: str) -> Global:
    if not _KNOWN.fullmatch(name):
        raise ValueError(f"{name[:_SHOWN].replace(' ', '.')} in it")
    return Global(name)


def _call(function: Any, arguments: Any) -> Any:
    if not isinstance(function, Global) or not isinstance(arguments, tuple):
        raise TypeError("a call of something other than a function")
    if function.name != _DICT:
        return Call(function.name, arguments)
    made: dict[Any, Any] = {}
    for key, value in arguments[0] if arguments else ():
        _set_items(made, [key], [value])
    return made


def _set_items(target: Any, keys: list[Any], values: list[Any]) -> None:
    for key, value in zip(keys, values, strict=True):
        # Of tuples in tuples, a few bytes of instructions make a hash that takes forever.
        parts = key if isinstance(key, tuple) else (key,)
        if not all(isinstance(part, str | bytes | int | float | None) for part in parts):
            raise TypeError("a key that is not a name")
        dict.__setitem__(target, key, value)
