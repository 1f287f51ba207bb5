"""The parameters of a model in PyTorch, each compared with the checkpoint's bit for bit."""

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
from surgeon.model.tensors import BITS, FLOATS

if TYPE_CHECKING:
    import torch


Array: TypeAlias = npt.NDArray[Any]
_Prints: TypeAlias = tuple[Array, int]
"""A fingerprint of 64 bits of each row of a tensor, and the rows' width."""

_IN_LAYER = re.compile(r".*?\.\d+\.")
_EXPERT = re.compile(r".*?\.(?P<layer>\d+)\..*\.experts\.(?P<expert>\d{1,9})\..*")
_MERGED = re.compile(r"\.experts\.\w+$")  # by transformers, of those of all experts of a layer
_MODULE_AND_LEAF = 2  # components of a name that say what a tensor outside the layers is
_PIECE = 2**22  # scalars of a tensor that are looked at together
_NOTHING = np.empty(0, dtype=np.uint64)


@dataclass(frozen=True)
class Parameter:
    """A parameter's name, and which part of it, where it holds those of all experts of a layer."""

    name: str
    expert: int | None = None

    @property
    def module(self) -> str:
        """The path of the module that holds the parameter."""
        return self.name.rpartition(".")[0]

    def values(self, parameters: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the tensor, a view into the model's own memory."""
        return self.part(parameters[self.name].data)

    def part(self, whole: torch.Tensor) -> torch.Tensor:
        """Return the part that it is of what is shaped like the parameter, a view."""
        return whole if self.expert is None else whole[self.expert]


def check_tensors(checkpoint: Checkpoint, model: Any, derived: Collection[str]) -> dict[str, str]:
    """Check that a model holds the checkpoint's tensors, no others, and all of each layer.

    A tensor of the model is its namesake in the files. Where transformers joined, split or
    renamed some, each of its rows is one of theirs: of the namesake, or of the layer. Tied tensors
    are one, and one tensor at a time is in memory.

    Args:
        checkpoint: what was loaded.
        model: the model of transformers, in float32.
        derived: the model's names of tensors that are in no file and are not read.

    Returns:
        The stored tensor that each of the model's names holds as it is; "" for one that holds
        several, or a part of one.

    Raises:
        ExportError: a tensor is another than the checkpoint's, or one of a layer is not there.
    """
    homes = {canonical_name(name): name for name in checkpoint.tensors}
    ends = _by_ends(homes)
    state: dict[str, torch.Tensor] = {n: t for n, t in model.state_dict().items() if t.numel()}
    home_of = {name: homes.get(_namesake(canonical_name(name), ends) or "") for name in state}
    same = {
        name: home
        for name, home in home_of.items()
        if home and _equal(_stored(checkpoint, home), state[name])
    }
    held = {_memory(state[name]) for name in same}
    # What the class itself computes, such as sinusoids for positions.
    computed = _any_of(getattr(model, "_keys_to_ignore_on_load_missing", None))
    used = set(same.values())
    # What another tensor holds is not the one of this name, though the two end alike.
    others = {name: "" if home in used else home for name, home in home_of.items()}
    rest = {
        name: home
        for name, home in others.items()
        if name not in same
        and (home or not (name in derived or _memory(state[name]) in held or computed.search(name)))
    }
    unused = [
        name
        for name, info in sorted(checkpoint.tensors.items())
        if name not in used and info.dtype in FLOATS and info.size
    ]
    for name in [name for name, home in rest.items() if not home]:
        if renamed := _renamed(name, state[name], checkpoint, unused):
            same[name] = renamed
            unused.remove(renamed)
            del rest[name]
    stored = _by_place({n: _prints(_stored(checkpoint, n)) for n in unused} if rest else {})
    joined = {name: _prints(_values(state[name])) for name in rest}
    for name, home in rest.items():
        rows, width = joined[name]
        if not np.isin(rows, stored.get((home or _layer(name), width), _NOTHING)).all():
            raise ExportError(
                f"{checkpoint.name}: {name} of transformers' {type(model).__name__} is not what "
                f"the weight file has in {home or 'that layer'}"
            )
    _check_all_held(checkpoint, model, unused, _by_place(joined))
    return {**dict.fromkeys(rest, ""), **same}


def match_names(checkpoint: Checkpoint, model: Any) -> dict[str, str]:
    """Match a model's tensors with the checkpoint's by names and shapes, as ``check_tensors`` does.

    Raises:
        ExportError: a parameter has no tensor that it can be by its name.
    """
    homes = {canonical_name(name): name for name in checkpoint.tensors}
    ends = _by_ends(homes)
    state = model.state_dict(keep_vars=True)
    computed = {name for name, _ in model.named_buffers()}
    found = {}
    for name, tensor in state.items():
        home = homes.get(_namesake(canonical_name(name), ends) or "", "")
        if home and checkpoint.shapes[home] == tuple(tensor.shape):
            found[name] = home
    held = {id(state[name]) for name in found}
    unused = sorted(checkpoint.tensors.keys() - found.values())
    for name in (name for name, tensor in state.items() if id(tensor) not in held):
        shape = tuple(state[name].shape)
        fit = [n for n in unused if _layer(n) == _layer(name) and checkpoint.shapes[n] == shape]
        if len(fit) == 1:
            found[name] = fit[0]
        elif _MERGED.search(name):
            found[name] = ""
        elif fit or name not in computed:
            raise ExportError(
                f"{checkpoint.name}: names and shapes do not say which tensor is {name} of "
                f"transformers' {type(model).__name__}",
                "let the weights be loaded, without `parity=False`",
            )
    return found


def _renamed(
    name: str, held: torch.Tensor, checkpoint: Checkpoint, unused: Iterable[str]
) -> str | None:
    """Return the stored tensor of the same layer that a tensor of another name is, if one is."""
    fit = (n for n in unused if _layer(n) == _layer(name) and checkpoint.shapes[n] == held.shape)
    equal = [stored for stored in fit if _equal(_stored(checkpoint, stored), held)]
    return equal[0] if len(equal) == 1 else None


def find_parameters(
    checkpoint: Checkpoint, model: Any, sources: Mapping[str, str]
) -> dict[str, Parameter]:
    """Find each editable tensor among the model's parameters.

    ``sources`` is what ``check_tensors`` returns.

    Raises:
        ExportError: one is not there as it is stored.
    """
    parameters = dict(model.named_parameters())
    held = {sources[name]: name for name in reversed([*sources]) if sources[name]}
    found = {}
    for tensor in (name for site in checkpoint.sites for name in (site.gain, site.bias) if name):
        if held.get(tensor) in parameters:
            found[tensor] = Parameter(held[tensor])
        elif expert := _find_expert(tensor, checkpoint.read(tensor), parameters):
            found[tensor] = expert
        else:
            raise ExportError(
                f"{checkpoint.name}: transformers does not load {tensor} as it is stored"
            )
    return found


def _find_expert(
    tensor: str, stored: Array, parameters: Mapping[str, torch.Tensor]
) -> Parameter | None:
    """Find an expert's tensor in the one that transformers makes of all experts of its layer.

    Their modules may have other names than in the file (Mixtral), and so may the tensors (w2 is
    down_proj): what is there in that layer, of that shape and with those values, is it.
    """
    match = _EXPERT.fullmatch(tensor)
    if match is None:
        return None
    expert = int(match["expert"])
    for name, values in parameters.items():
        of_layer = f".{match['layer']}." in name and ".experts." in name
        if of_layer and values.shape[1:] == stored.shape and expert < values.shape[0]:
            part = Parameter(name, expert)
            if _equal(stored, part.values(parameters)):
                return part
    return None


def _check_all_held(
    checkpoint: Checkpoint,
    model: Any,
    unused: Iterable[str],
    joined: Mapping[tuple[str, int], Array],
) -> None:
    """Check that no weight of a layer was left aside: what computes without it is another model."""
    layers = {found[0] for site in checkpoint.sites if (found := _IN_LAYER.match(site.gain))}
    patterns = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
    ignored = _any_of([*patterns, "inv_freq$"])
    for name in unused:
        info, found = checkpoint.tensors[name], _IN_LAYER.match(name)
        # Other shapes are masks and tables of positions, which older files have.
        if len(info.shape) not in (1, 2) or ignored.search(name):
            continue
        if found is None or found[0] not in layers:  # of a head that is not loaded
            continue
        rows, width = _prints(_stored(checkpoint, name))
        if not np.isin(rows, joined.get((_layer(name), width), _NOTHING)).all():
            raise ExportError(
                f"{checkpoint.where(name)}: {name} is not in transformers' "
                f"{type(model).__name__}: the weights are of another model than config.json says"
            )


def _any_of(patterns: Iterable[str] | None) -> re.Pattern[str]:
    return re.compile("|".join([*(patterns or ()), "(?!)"]))


def _by_ends(names: Iterable[str]) -> Mapping[str, list[str]]:
    """Return names by each of their ends: "a.b.c" under "a.b.c", "b.c" and "c"."""
    found = defaultdict(list)
    for name in names:
        parts = name.split(".")
        for start in range(len(parts)):
            found[".".join(parts[start:])].append(name)
    return found


def _namesake(tensor: str, ends: Mapping[str, list[str]]) -> str | None:
    """Return the name that has most of its end in common with a tensor's.

    Prefixes differ (``bert.``, none), and even their order does (Gemma 3's ``language_model.model``
    is ``model.language_model`` in memory). What follows from the layer's number on may not.
    """
    parts = tensor.split(".")
    number = next((at for at, part in enumerate(parts) if part.isdecimal()), None)
    last = max(0, len(parts) - _MODULE_AND_LEAF) if number is None else number
    for start in range(last + 1):
        if found := ends.get(".".join(parts[start:])):
            return found[0] if len(found) == 1 else None
    return None


def _equal(stored: Array, held: torch.Tensor) -> bool:
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


def _prints(values: Array) -> _Prints:
    """Return each row's sum of its values' bits, each times a random number of its column."""
    width = values.shape[-1] if values.ndim else 1
    rows = np.ascontiguousarray(values, dtype=np.float32).reshape(-1, width).view(np.uint32)
    weights = np.random.default_rng(width).integers(1, 2**63, size=width, dtype=np.uint64)
    step = max(1, _PIECE // width)
    pieces = [rows[n : n + step].astype(np.uint64) @ weights for n in range(0, len(rows), step)]
    return np.concatenate(pieces), width


def _by_place(prints: Mapping[str, _Prints]) -> dict[tuple[str, int], Array]:
    """Return the fingerprints by width: of each tensor, and of each layer."""
    found = defaultdict(list)
    for name, (rows, width) in prints.items():
        for place in {name, _layer(name)}:
            found[place, width].append(rows)
    return {place: np.concatenate(rows) for place, rows in found.items()}
