"""A transformers model in memory: seen as a checkpoint, and edited for as long as a block runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from surgeon.edit.changes import Edit
from surgeon.edit.plan import Plan, make_plan
from surgeon.edit.recipe import Recipe
from surgeon.model.checkpoint import Checkpoint, count_floats, find_architecture
from surgeon.model.tensors import TensorFile, TensorInfo

if TYPE_CHECKING:
    import torch


# The names that the safetensors format has for PyTorch's dtypes.
_DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip


@dataclass(frozen=True)
class LiveTensors(TensorFile):
    """The tensors of a model in memory, of which ``state`` holds the values as they are now."""

    state: Mapping[str, torch.Tensor]

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield a tensor's bytes in one piece, from whatever device it is on."""
        import torch

        values = self.state[name].detach().cpu().contiguous().flatten()
        yield values.view(torch.uint8).numpy().tobytes()


def open_live(model: Any, *, sites_pattern: str | None = None) -> Checkpoint:
    """See a transformers model in PyTorch as a checkpoint, to rank or to plan an edit of.

    Args:
        model: a ``PreTrainedModel``, on any device and in any dtype; it is not changed.
        sites_pattern: as of ``open_checkpoint``.

    Raises:
        UnknownArchitectureError: no row of the registry describes it (once its sites are needed).
        CheckpointError: its tensors are not those of its family, such as experts that are joined.
    """
    state, infos, start = model.state_dict(), {}, 0
    for name, tensor in state.items():
        dtype = _DTYPES.get(str(tensor.dtype).removeprefix("torch."))
        if dtype is not None:
            end = start + tensor.numel() * tensor.element_size()
            infos[name] = TensorInfo(name, dtype, tuple(tensor.shape), start, end)
            start = end
    called = Path(model.name_or_path or type(model).__name__)
    files = (LiveTensors(called, infos, state),)
    return Checkpoint(
        name=called.name,
        directory=called,
        config=model.config.to_dict(),
        files=files,
        describe=find_architecture,
        parameters_total=count_floats(files),
        sites_pattern=sites_pattern,
    )


@contextlib.contextmanager
def removed(
    model: Any, dims: Sequence[int] | None = None, *, sites_pattern: str | None = None, **how: Any
) -> Iterator[Plan]:
    """Edit a transformers model in memory; after the block its weights are back, bit for bit.

        with surgeon.removed(model, dims=[99, 157]):
            without = model(**inputs)

    Args:
        model: a ``PreTrainedModel`` in PyTorch, on any device and in any dtype.
        dims: the dimensions to remove (None: those that ``how`` chooses).
        sites_pattern: as of ``open_checkpoint``.
        how: any other setting of a ``Recipe``, such as ``mode="mean"``, ``layers=(3,)`` or
            ``random=2``.

    Yields:
        The plan, with every value before and after.

    Raises:
        SelectionError: a setting is wrong, or a dimension or layer is not one of the model's.
        CheckpointError: as ``open_live``.
    """
    recipe = Recipe(dims=None if dims is None else tuple(dims), **how)
    plan = make_plan(open_live(model, sites_pattern=sites_pattern), recipe)
    state = model.state_dict()
    with contextlib.ExitStack() as undo:
        for edit in plan.edits:
            undo.callback(_write(state[edit.tensor], edit))
        yield plan


def _write(tensor: torch.Tensor, edit: Edit) -> Callable[[], object]:
    """Write an edit's new values into a tensor, and return what puts the old ones back."""
    import torch

    index = torch.tensor(edit.dims, device=tensor.device)
    old = tensor.index_select(edit.axis, index)
    # By way of float64, which holds every value of a narrower dtype exactly.
    new = torch.from_numpy(edit.new.astype(np.float64)).to(tensor.device, tensor.dtype)
    tensor.index_copy_(edit.axis, index, new)
    return lambda: tensor.index_copy_(edit.axis, index, old)
