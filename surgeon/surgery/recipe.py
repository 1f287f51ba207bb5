"""What a person asks for: which dimensions, what to do to them, in which sites and layers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

from surgeon.architectures import Role
from surgeon.errors import SelectionError
from surgeon.outliers.options import MIN_DAMAGE, SIGMA

Mode: TypeAlias = Literal["zero", "scale", "mean"]
Param: TypeAlias = Literal["gain", "bias"]

PARAMS: tuple[Param, ...] = ("gain", "bias")

_Name = TypeVar("_Name", bound=str)
_MAX_NUMBERS = 1_000_000


@dataclass(frozen=True)
class Recipe:
    """An operation, independent of the checkpoint it is done to.

    Exactly one of ``dims``, ``remove_outliers`` and ``random`` chooses the dimensions: the named
    ones, the N strongest that meet the criterion of ``method``, or N drawn with ``seed``.
    ``relax`` takes the N strongest even if they do not meet the criterion. ``sigma``,
    ``min_layers`` (None: the method's own rule) and ``min_damage`` are settings of the methods
    that take them. ``layers`` limits the edit to those layers (None: all); ``sites`` says which
    norms, "all" those that there are.

    Raises:
        SelectionError: the fields contradict each other.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (pydantic reads it off the class)

    dims: tuple[int, ...] | None = None
    remove_outliers: int | None = None
    random: int | None = None
    seed: int = 0
    method: str = "layernorm"
    sigma: float = SIGMA
    min_layers: float | None = None
    min_damage: float = MIN_DAMAGE
    relax: bool = False
    mode: Mode = "zero"
    factor: float | None = None
    params: tuple[Param, ...] = PARAMS
    layers: tuple[int, ...] | None = None
    sites: tuple[Role | Literal["all"], ...] = ("output",)
    description: str = ""

    def __post_init__(self) -> None:
        choices = (self.dims, self.remove_outliers, self.random)
        if sum(choice is not None for choice in choices) != 1:
            raise SelectionError(
                "say which dimensions in exactly one way: --remove-outliers N, --dims LIST, "
                "--random N or --recipe FILE"
            )
        if self.dims is not None and (not self.dims or len(set(self.dims)) != len(self.dims)):
            raise SelectionError(f"--dims {_join(self.dims)}: name each dimension once, and one")
        count = self.remove_outliers if self.remove_outliers is not None else self.random
        if count is not None and count < 1:
            option = "--random" if self.random is not None else "--remove-outliers"
            raise SelectionError(f"{option} {count}: give a number of dimensions, 1 or more")
        if self.seed < 0:
            raise SelectionError(f"--seed {self.seed}: give a number of 0 or more")
        if (self.mode == "scale") != (self.factor is not None):
            raise SelectionError("--mode scale and --factor F go together, and only together")
        if not self.params or not self.sites or self.layers == ():
            raise SelectionError("--params, --layers and --sites each need one entry or more")

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
        return pydantic.TypeAdapter(Recipe).validate_python(fields)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "recipe"
        raise SelectionError(f"{source}: {where}: {first['msg']}") from error


def load_recipe(name_or_path: str) -> Recipe:
    """Read a recipe from a YAML file, or by the name of one that ships with surgeon.

    Raises:
        SelectionError: there is none, or it is not a valid recipe.
    """
    import yaml

    path = Path(name_or_path)
    if not path.is_file() and name_or_path in shipped_recipes():
        path = shipped_recipes()[name_or_path]
    if not path.is_file():
        known = ", ".join(sorted(shipped_recipes()))
        raise SelectionError(
            f"--recipe {name_or_path}: no such file, and not one that ships with surgeon ({known})"
        )
    try:
        fields = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        first_line = " ".join(str(error).split())
        raise SelectionError(f"--recipe {path}: not valid YAML ({first_line})") from error
    return recipe_from_json(fields, f"--recipe {path}")


def shipped_recipes() -> dict[str, Path]:
    """Return the recipes that ship with surgeon, by name."""
    package = Path(__file__).parent.parent
    # A wheel has them inside the package, a source tree at its top.
    folder = next(f for f in (package / "recipes", package.parent / "recipes") if f.is_dir())
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def parse_numbers(option: str, text: str) -> tuple[int, ...]:
    """Parse ``308,381`` or ``0-5,11`` into numbers, in the order written.

    Raises:
        SelectionError: it is not such a list.
    """
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not (_is_number(first) and (not dash or _is_number(last))):
            raise SelectionError(f"{option} {text!r}: give numbers and ranges such as 0-5,11")
        low, high = int(first), int(last) if dash else int(first)
        if high < low or high - low > _MAX_NUMBERS:
            raise SelectionError(f"{option} {text!r}: {part.strip()} is no range")
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


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def _join(numbers: tuple[int, ...]) -> str:
    return ",".join(map(str, numbers))
