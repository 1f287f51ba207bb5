"""What a model in PyTorch holds, compared with the checkpoint: every tensor, bit for bit."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from surgeon.errors import ExportError
from surgeon.families import canonical_name
from surgeon.model import Checkpoint
from surgeon.model.safetensors_file import BITS, FLOATS

if TYPE_CHECKING:
    import torch


Array: TypeAlias = npt.NDArray[Any]
Ends: TypeAlias = Mapping[str, list[str]]
"""Names by each of their ends: "a.b.c" under "a.b.c", "b.c" and "c"."""

_IN_LAYER = re.compile(r".*?\.\d+\.")
_MODULE_AND_LEAF = 2  # components of a name that say what a tensor outside the layers is
_PIECE = 2**22  # scalars of a tensor that are looked at together
_NOTHING = np.empty(0, dtype=np.uint64)


def check_tensors(
    checkpoint: Checkpoint, model: Any, derived: Collection[str], otherwise: str
) -> None:
    """Check that a model holds the checkpoint's tensors, no others, and all of each layer.

    A tensor of the model is its namesake in the files. Where transformers joined, split or
    renamed some, each of its rows is one of theirs: of the namesake, or of the layer. Tied tensors
    are one, and one tensor at a time is in memory.

    Args:
        checkpoint: what was loaded.
        model: the model of transformers, in float32.
        derived: the model's names of tensors that are in no file and are not read.
        otherwise: what an error tells the user to do instead.

    Raises:
        ExportError: a tensor is another than the checkpoint's, or one of a layer is not there.
    """
    homes = {canonical_name(name): name for name in checkpoint.tensors}
    ends = by_ends(homes)
    state: dict[str, torch.Tensor] = {n: t for n, t in model.state_dict().items() if t.numel()}
    home_of = {name: homes.get(namesake(canonical_name(name), ends) or "") for name in state}
    same = {n for n, home in home_of.items() if home and equal(_stored(checkpoint, home), state[n])}
    held = {_memory(state[name]) for name in same}
    # What the class itself computes, such as sinusoids for positions.
    patterns = getattr(model, "_keys_to_ignore_on_load_missing", None) or ()
    computed = re.compile("|".join([*patterns, "(?!)"]))
    rest = {
        name: home
        for name, home in home_of.items()
        if name not in same
        and (home or not (name in derived or _memory(state[name]) in held or computed.search(name)))
    }
    used = {home_of[name] for name in same}
    unused = sorted(
        name
        for name, info in checkpoint.tensors.items()
        if name not in used and info.dtype in FLOATS and info.size
    )
    stored = {name: _prints(_stored(checkpoint, name)) for name in unused} if rest else {}
    known = _by_place(stored)
    joined = {name: _prints(_values(state[name])) for name in rest}
    for name, home in rest.items():
        place = (home or _layer(name), joined[name].width)
        if not np.isin(joined[name].rows, known.get(place, _NOTHING)).all():
            raise ExportError(
                f"{checkpoint.name}: {name} of transformers' {type(model).__name__} is not what "
                f"the weight file has in {home or 'that layer'}; {otherwise}"
            )
    _check_all_held(checkpoint, model, unused, _by_place(joined), otherwise)


def _check_all_held(
    checkpoint: Checkpoint,
    model: Any,
    unused: Iterable[str],
    held: Mapping[tuple[str, int], Array],
    otherwise: str,
) -> None:
    """Check that no weight of a layer was left aside: what computes without it is another model."""
    layers = {found[0] for site in checkpoint.sites if (found := _IN_LAYER.match(site.gain))}
    patterns = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
    ignored = re.compile("|".join([*patterns, "inv_freq$"]))
    for name in unused:
        info, found = checkpoint.tensors[name], _IN_LAYER.match(name)
        # Other shapes are masks and tables of positions, which older files have.
        if len(info.shape) not in (1, 2) or ignored.search(name):
            continue
        if found is None or found[0] not in layers:  # of a head that is not loaded
            continue
        prints = _prints(_stored(checkpoint, name))
        if not np.isin(prints.rows, held.get((_layer(name), prints.width), _NOTHING)).all():
            raise ExportError(
                f"{checkpoint.where(name)}: {name} has no place in transformers' "
                f"{type(model).__name__}, so that the weights are of another model than "
                f"config.json says; {otherwise}"
            )


def by_ends(names: Iterable[str]) -> Ends:
    """Index names for ``namesake``."""
    found = defaultdict(list)
    for name in names:
        parts = name.split(".")
        for start in range(len(parts)):
            found[".".join(parts[start:])].append(name)
    return found


def namesake(tensor: str, ends: Ends) -> str | None:
    """Return the name that has most of its end in common with a tensor's.

    Prefixes differ (``bert.``, none), and even their order does (Gemma 3's ``language_model.model``
    is ``model.language_model`` in memory). What follows from the layer's number on may not.
    """
    parts = tensor.split(".")
    number = next((at for at, part in enumerate(parts) if part.isdecimal()), None)
    last = len(parts) - _MODULE_AND_LEAF if number is None else number
    for start in range(last + 1):
        if found := ends.get(".".join(parts[start:])):
            return found[0] if len(found) == 1 else None
    return None


def equal(stored: Array, held: torch.Tensor) -> bool:
    """Whether a stored tensor is one of PyTorch's in float32, bit for bit; NaN is any NaN."""
    values = _values(held)
    if stored.shape != values.shape or (stored.dtype.kind in "iub") != (values.dtype.kind in "iub"):
        return False
    with np.errstate(over="ignore"):
        stored = stored.astype(values.dtype, copy=False)
    bits = f"u{values.dtype.itemsize}"
    ours, theirs = stored.view(bits), values.view(bits)
    if np.array_equal(ours, theirs):
        return True
    nan = np.isnan(stored)
    return (
        bool(nan.any())
        and np.array_equal(nan, np.isnan(values))
        and np.array_equal(ours[~nan], theirs[~nan])
    )


def _memory(tensor: torch.Tensor) -> tuple[int, tuple[int, ...]]:
    return tensor.data_ptr(), tuple(tensor.shape)


def _values(tensor: torch.Tensor) -> Array:
    values: Array = tensor.detach().numpy()
    return values


def _stored(checkpoint: Checkpoint, name: str) -> Array:
    """Read a tensor of any dtype: floats as float32, integers as they are, others as bytes."""
    info = checkpoint.tensors[name]
    if info.dtype in FLOATS:
        with np.errstate(over="ignore"):
            return checkpoint.read(name).astype(np.float32, copy=False)
    raw = b"".join(checkpoint.homes[name].pieces(name))
    if info.dtype == "BOOL":
        return np.frombuffer(raw, dtype=np.bool_).reshape(info.shape)
    if info.dtype[0] in "IU":
        kind = f"<{info.dtype[0].lower()}{BITS[info.dtype] // 8}"
        return np.frombuffer(raw, dtype=kind).reshape(info.shape)
    return np.frombuffer(raw, dtype=np.uint8)


def _layer(name: str) -> str:
    return next((part for part in name.split(".") if part.isdecimal()), "")


@dataclass(frozen=True, eq=False)
class _Prints:
    """A fingerprint of 64 bits of each row of a tensor, and the rows' width."""

    rows: Array
    width: int


def _prints(values: Array) -> _Prints:
    """Return each row's sum of its values' bits, each times a number of its place."""
    width = values.shape[-1] if values.ndim else 1
    rows = np.ascontiguousarray(values, dtype=np.float32).reshape(-1, width).view(np.uint32)
    weights = np.random.default_rng(width).integers(1, 2**63, size=width, dtype=np.uint64)
    step = max(1, _PIECE // width)
    pieces = [rows[n : n + step].astype(np.uint64) @ weights for n in range(0, len(rows), step)]
    return _Prints(np.concatenate(pieces), width)


def _by_place(prints: Mapping[str, _Prints]) -> dict[tuple[str, int], Array]:
    """Return the fingerprints by width: of each tensor, and of each layer."""
    found = defaultdict(list)
    for name, one in prints.items():
        for place in {name, _layer(name)}:
            found[place, one.width].append(one.rows)
    return {place: np.concatenate(rows) for place, rows in found.items()}
