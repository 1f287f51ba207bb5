"""A transformers model in memory, edited for as long as a block runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from surgeon.edit.changes import Edit
from surgeon.edit.plan import Plan, make_plan
from surgeon.edit.recipe import Recipe
from surgeon.torch_model.live import open_live

if TYPE_CHECKING:
    import torch


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
    settings: dict[str, Any] = {"dims": dims, **how}
    recipe = Recipe(**settings)
    live = open_live(model, sites_pattern=sites_pattern)
    # The parameters themselves: within the block the model may go to another device or dtype.
    plan, state = make_plan(live, recipe), live.model.state_dict(keep_vars=True)
    with contextlib.ExitStack() as undo:
        for edit in plan.edits:
            undo.callback(_write(state[edit.tensor], edit))
        yield plan


def _write(parameter: torch.Tensor, edit: Edit) -> Callable[[], None]:
    """Write an edit's new values into a parameter, and return what puts the old ones back."""
    import torch

    index = torch.tensor(edit.dims)

    def put(values: torch.Tensor) -> None:
        now = parameter.detach()
        now.index_copy_(edit.axis, index.to(now.device), values.to(now.device, now.dtype))

    old = parameter.detach().index_select(edit.axis, index.to(parameter.device))
    # By way of float64, which holds every value of a narrower dtype exactly.
    put(torch.from_numpy(edit.new.astype(np.float64)))
    return lambda: put(old)
