"""What a model in PyTorch holds, compared with the checkpoint: every tensor, bit for bit."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from surgeon.architectures import canonical_name
from surgeon.checkpoint import Checkpoint
from surgeon.checkpoint.dtypes import BITS, FLOATS
from surgeon.errors import ExportError

if TYPE_CHECKING:
    import torch

Array: TypeAlias = npt.NDArray[Any]
Ends: TypeAlias = Mapping[str, list[str]]
"""Names by each of their ends: "a.b.c" under "a.b.c", "b.c" and "c"."""

_MODULE_AND_LEAF = 2  # components of a name that say what a tensor outside the layers is
_PIECE = 2**22  # scalars of a tensor that are looked at together
_NOTHING = np.empty(0, dtype=np.uint64)


def check_tensors(
    checkpoint: Checkpoint, model: Any, derived: Collection[str], otherwise: str
) -> None:
    """Check that a model holds the checkpoint's tensors and no others.

    A tensor of the model is its namesake in the files. Where transformers joined, split or
    renamed some, each of its rows is one of theirs: of the namesake, or of the layer. Tied tensors
    are looked at once, one tensor is in memory at a time.

    Args:
        checkpoint: what was loaded.
        model: the model of transformers, in float32.
        derived: the model's names of tensors that are in no file and are not read.
        otherwise: what an error tells the user to do instead.

    Raises:
        ExportError: a tensor is another than the checkpoint's.
    """
    homes = {canonical_name(name): name for name in checkpoint.tensors}
    ends = by_ends(homes)
    # What the class itself computes, such as sinusoids for positions.
    computed = getattr(model, "_keys_to_ignore_on_load_missing", None) or ()
    left: dict[str, tuple[torch.Tensor, str | None]] = {}
    unused = set(checkpoint.tensors)
    for name, tensor in _apart(model):
        home = homes.get(namesake(canonical_name(name), ends) or "")
        if home is not None and equal(_stored(checkpoint, home), tensor):
            unused.discard(home)
        elif home is not None or not (
            name in derived or any(re.search(pattern, name) for pattern in computed)
        ):
            left[name] = (tensor, home)
    rows = _rows(checkpoint, unused) if left else {}
    for name, (tensor, home) in left.items():
        values = _values(tensor)
        known = rows.get((home or _layer(name), _width(values)), _NOTHING)
        if not np.isin(_fingerprints(values), known).all():
            raise ExportError(
                f"{checkpoint.name}: {name} of transformers' {type(model).__name__} is not what "
                f"the weight file has in {home or 'that layer'}; {otherwise}"
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
    """Whether a stored tensor is one of PyTorch's in float32, bit for bit."""
    values = _values(held)
    if stored.dtype.kind != values.dtype.kind and stored.dtype.kind in "iub":
        return False
    stored = stored.astype(values.dtype, copy=False)
    if stored.shape != values.shape or stored.dtype.itemsize != values.dtype.itemsize:
        return False
    bits = f"u{values.dtype.itemsize}"
    return np.array_equal(stored.view(bits), values.view(bits))


def _apart(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the model's tensors, of those that share memory the first."""
    seen = set()
    for name, tensor in model.state_dict().items():
        place = (tensor.data_ptr(), tensor.shape)
        if tensor.numel() and place not in seen:
            seen.add(place)
            yield name, tensor


def _values(tensor: torch.Tensor) -> Array:
    values: Array = tensor.detach().numpy()
    return values


def _stored(checkpoint: Checkpoint, name: str) -> Array:
    """Read a tensor of any dtype: floats as float32, what is packed as bytes."""
    info = checkpoint.tensors[name]
    if info.dtype in FLOATS:
        return checkpoint.read(name).astype(np.float32, copy=False)
    raw = b"".join(checkpoint.homes[name].pieces(name))
    if info.dtype == "BOOL" or info.dtype in ("U8", "I8", "I16", "I32", "I64"):
        kind = "?" if info.dtype == "BOOL" else f"<{info.dtype[0].lower()}{BITS[info.dtype] // 8}"
        return np.frombuffer(raw, dtype=kind).reshape(info.shape)
    return np.frombuffer(raw, dtype=np.uint8)


def _rows(checkpoint: Checkpoint, names: Iterable[str]) -> dict[tuple[str, int], Array]:
    """Return the rows of tensors by their width: those of each tensor, and of each layer."""
    found = defaultdict(list)
    for name in sorted(names):
        values = _stored(checkpoint, name)
        if values.size:
            prints, width = _fingerprints(values), _width(values)
            found[name, width].append(prints)
            found[_layer(name), width].append(prints)
    return {place: np.concatenate(prints) for place, prints in found.items()}


def _layer(name: str) -> str:
    return next((part for part in name.split(".") if part.isdecimal()), "")


def _width(values: Array) -> int:
    return values.shape[-1] if values.ndim else 1


def _fingerprints(values: Array) -> Array:
    """Return 64 bits of each row: a sum of its values' bits, each times a number of its place."""
    width = _width(values)
    rows = np.ascontiguousarray(values, dtype=np.float32).reshape(-1, width).view(np.uint32)
    weights = np.random.default_rng(width).integers(1, 2**63, size=width, dtype=np.uint64)
    step = max(1, _PIECE // width)
    pieces = [rows[n : n + step].astype(np.uint64) @ weights for n in range(0, len(rows), step)]
    return np.concatenate(pieces)
