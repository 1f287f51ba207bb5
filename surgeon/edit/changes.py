"""What changes in a file: the values that a mode gives, the bytes they are, and other spans."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from surgeon.errors import CheckpointError, SelectionError
from surgeon.model import TensorInfo
from surgeon.model.tensors import round_once


@dataclass(frozen=True)
class _From:
    """Tells pydantic what JSON has in place of a field's value, and how to make the value of it."""

    kind: Any
    convert: Callable[[Any], Any]

    def __get_pydantic_core_schema__(self, source: object, handler: Any) -> Any:
        from pydantic_core import core_schema  # which this module need not import

        schema = handler.generate_schema(self.kind)
        return core_schema.no_info_after_validator_function(self.convert, schema)


def _listed_values(values: list[float | None] | None) -> npt.NDArray[np.float64]:
    return np.empty((0, 0)) if values is None else np.array(values, dtype=np.float64)


Values: TypeAlias = Annotated[npt.NDArray[Any], _From(list[float | None] | None, _listed_values)]


@dataclass(frozen=True, eq=False)
class Edit:
    """The change of one tensor: in a plan, in a record and in a small patch.

    Attributes:
        file: the artifact's file that has the tensor.
        tensor: its name.
        role: of the site that it belongs to, such as "output".
        kind: "layernorm", "rmsnorm" or "dense".
        layer: of the site; None outside the layers.
        param: "gain" or "bias".
        axis: the axis that the dimension indexes.
        dims: the dimensions.
        offset: what the model adds to the stored gain (Gemma: 1).
        scalars: how many there are in the slices.
        changed: how many of them differ in at least one bit.
        old: the slices at ``dims`` along ``axis``, in the tensor's own dtype: shape (dims,) for a
            vector, (inputs, dims) or (dims, inputs) for a weight, with the experts before them in
            a tensor of all. A record lists those of vectors alone; read from one, they are float64,
            and the others, which are many, are (0, 0).
        new: what takes their place, as ``old``.
        stack: of the site; empty in a model of one stack.
    """

    file: str
    tensor: str
    role: str
    kind: str
    layer: int | None
    param: str
    axis: int
    dims: tuple[int, ...]
    offset: float
    scalars: int
    changed: int
    old: Values
    new: Values
    stack: str = ""

    def fits(self, shape: Sequence[int], old: Sequence[int]) -> bool:
        """Whether a tensor of ``shape`` has the edited slices, and they are of shape ``old``."""
        if not 0 <= self.axis < len(shape):
            return False
        inside = all(0 <= dim < shape[self.axis] for dim in self.dims)
        sliced = [*shape[: self.axis], len(self.dims), *shape[self.axis + 1 :]]
        return inside and list(old) == sliced


def kinds_of(edits: Iterable[Edit]) -> str:
    """Say which kinds of vector are edited, for people."""
    named = {" ".join(filter(None, (e.stack, e.role, e.kind))) for e in edits}
    return ", ".join(sorted(named))


def count_changed(old: npt.NDArray[Any], new: npt.NDArray[Any]) -> int:
    """Return how many scalars differ in at least one bit; bytes are those of two FP4 weights."""
    bits = np.dtype(f"u{old.dtype.itemsize}")
    differ = np.ascontiguousarray(old).view(bits) ^ np.ascontiguousarray(new).view(bits)
    halves = (differ & 15, differ >> 4) if old.dtype == np.uint8 else (differ,)
    return int(sum(map(np.count_nonzero, halves)))


def with_slices(
    tensor: npt.NDArray[Any], axis: int, dims: tuple[int, ...], values: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    """Return a copy of a tensor with other values at ``dims`` along ``axis``."""
    result = tensor.copy()
    np.moveaxis(result, axis, 0)[list(dims)] = np.moveaxis(values, axis, 0)
    return result


def finite_or_none(values: npt.NDArray[Any]) -> list[Any]:
    """Return an array as JSON has it, which knows no infinities and no NaN: None stands there."""
    exact = values.astype(np.float64)
    finite: list[Any] = np.where(np.isfinite(exact), exact, np.array(None)).tolist()
    return finite


def to_json(value: Any) -> dict[str, Any]:
    """Return a dataclass as the record has it: bytes in hex, and no values of a weight's edit."""

    def plain(part: Any) -> Any:
        if isinstance(part, bytes):
            return part.hex()
        return finite_or_none(part) if part.ndim == 1 else None  # the excised values have all bits

    document: dict[str, Any] = json.loads(json.dumps(asdict(value), default=plain, allow_nan=False))
    return document


@dataclass(frozen=True, eq=False)
class BytePatch:
    """Byte offsets in a file, ascending, (n,) int64, and what belongs there, (n,) uint8."""

    offsets: npt.NDArray[np.int64]
    content: npt.NDArray[np.uint8]

    def within(self, start: int, end: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
        """Return the part from ``start`` to ``end``, at offsets from there."""
        first, last = np.searchsorted(self.offsets, [start, end])
        return self.offsets[first:last] - start, self.content[first:last]


def byte_patch(
    edits: Sequence[Edit], values: Iterable[npt.NDArray[Any]], tensors: Mapping[str, TensorInfo]
) -> BytePatch | None:
    """Return the bytes of the edits' slices in a file; None without edits.

    Args:
        edits: of tensors in the file.
        values: what belongs in the slices of each, in the tensor's dtype.
        tensors: where the file has its tensors.
    """
    if not edits:
        return None
    places, contents = [], []
    for edit, value in zip(edits, values, strict=True):
        places.append(_places(edit, tensors[edit.tensor], value.dtype.itemsize))
        contents.append(np.frombuffer(np.ascontiguousarray(value).tobytes(), dtype=np.uint8))
    offsets, content = np.concatenate(places), np.concatenate(contents)
    order = np.argsort(offsets, kind="stable")
    return BytePatch(offsets[order], content[order])


def _places(edit: Edit, tensor: TensorInfo, element_size: int) -> npt.NDArray[np.int64]:
    coordinates = [np.arange(length, dtype=np.int64) for length in tensor.shape]
    coordinates[edit.axis] = np.asarray(edit.dims, dtype=np.int64)
    elements = np.ravel_multi_index(np.ix_(*coordinates), tensor.shape).reshape(-1, 1)
    return (tensor.start + elements * element_size + np.arange(element_size)).reshape(-1)


@dataclass(frozen=True)
class Splice:
    """``length`` bytes from ``start`` on in a file, and what takes their place."""

    start: int
    length: int
    content: Annotated[bytes, _From(str, bytes.fromhex)]

    @property
    def end(self) -> int:
        """Where the replaced bytes end."""
        return self.start + self.length


def sort_splices(splices: Iterable[Splice], path: Path) -> list[Splice]:
    """Sort splices of a file by their places.

    Raises:
        CheckpointError: one lies outside the file, or they overlap.
    """
    ordered = sorted(splices, key=lambda splice: (splice.start, splice.end))
    ends = [0, *(splice.end for splice in ordered)]
    starts = [*(splice.start for splice in ordered), path.stat().st_size]
    if any(splice.length < 0 for splice in ordered) or any(map(int.__lt__, starts, ends)):
        raise CheckpointError(f"{path}: its recorded changes do not fit it; it is damaged")
    return ordered


def inverse(splices: Iterable[Splice], path: Path) -> tuple[Splice, ...]:
    """Return what undoes splices of the file at ``path``, at offsets of the spliced file."""
    ordered = sort_splices(splices, path)
    growth = (len(splice.content) - splice.length for splice in ordered)
    undo = []
    with path.open("rb") as file:
        for splice, shift in zip(ordered, itertools.accumulate(growth, initial=0), strict=False):
            file.seek(splice.start)
            replaced = file.read(splice.length)
            undo.append(Splice(splice.start + shift, len(splice.content), replaced))
    return tuple(undo)


Mode: TypeAlias = Literal["zero", "scale", "mean"]


def new_values(
    name: str,
    tensor: npt.NDArray[Any],
    axis: int,
    dims: Sequence[int],
    mode: Mode,
    factor: float | None,
    offset: float,
) -> npt.NDArray[Any]:
    """Return what ``mode`` puts in place of ``tensor``'s slices at ``dims``.

    Args:
        name: what an error calls the tensor.
        tensor: a vector (hidden,) or a weight whose ``axis`` has the hidden size.
        axis: the axis that the dimension indexes.
        dims: the dimensions.
        mode: zero is the paper's, and mean that of the vector (of a weight: for each input).
        factor: what ``scale`` multiplies by.
        offset: what the model adds to the stored values; the mode acts on the sum.

    Returns:
        An array of the tensor's dtype, with ``len(dims)`` entries along ``axis``; computed in
        float64 and rounded once.

    Raises:
        SelectionError: a finite value would become one that the dtype cannot hold, or the mean is
            not finite.
    """
    old = np.take(tensor, dims, axis=axis).astype(np.float64)
    match mode:
        case "zero":
            exact = np.full_like(old, 0.0 - offset)
        case "scale":
            assert factor is not None  # of the recipe
            # (old + offset) × factor − offset, in an order in which a factor of 1 changes nothing.
            exact = old * factor + offset * (factor - 1) if offset else old * factor
        case "mean":
            # It shifts with the offset, which falls out; numpy converts one buffer at a time.
            with np.errstate(invalid="ignore"):
                mean = np.mean(tensor, axis=axis, keepdims=True, dtype=np.float64)
            if not np.isfinite(mean).all():
                raise SelectionError(
                    f"`mode` mean: {name} holds values whose mean is not finite; repair them, or "
                    "use `mode` zero"
                )
            exact = np.broadcast_to(mean, old.shape)
    new = round_once(exact, tensor.dtype)
    overflow = np.isfinite(old) & ~np.isfinite(new.astype(np.float64))
    if overflow.any():
        raise SelectionError(
            f"`mode` {mode}: {name}: the result does not fit {tensor.dtype}; use a smaller `factor`"
        )
    return new
