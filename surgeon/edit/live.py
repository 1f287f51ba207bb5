"""A transformers model in memory, edited for as long as a block runs."""

from __future__ import annotations

import contextlib
import threading
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

    Blocks on one model may overlap, and end in any order: what the last of them leaves is what the
    first found.

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
        ExportError, EvaluationError: as ``make_plan``.
    """
    settings: dict[str, Any] = {"dims": dims, **how}
    recipe = Recipe(**settings)
    live = open_live(model, sites_pattern=sites_pattern)
    with contextlib.ExitStack() as undo:
        with _LOCK:
            plan = make_plan(live, recipe)
            for edit in plan.edits:
                undo.callback(_write(live.model, edit))
        yield plan


_LOCK = threading.RLock()
# What each edit found, by the parameter's id and the dimension, in the order of the edits: blocks
# may end in any other order.
_FOUND: dict[tuple[int, int], dict[Edit, torch.Tensor]] = {}


def _write(model: Any, edit: Edit) -> Callable[[], None]:
    """Write an edit's new values into a model, and return what puts the old ones back."""
    import torch

    def put(dims: list[int], values: torch.Tensor) -> None:
        with torch.inference_mode():  # what was made in it refuses to be written outside
            # Within the block it may get another device, dtype or parameter.
            now = model.get_parameter(edit.tensor).detach().movedim(edit.axis, 0)
            now[dims] = values.to(now.device, now.dtype)

    parameter, dims = model.get_parameter(edit.tensor), list(edit.dims)
    old = parameter.detach().movedim(edit.axis, 0)[dims]
    # By way of float64, which holds every value of a narrower dtype exactly.
    put(dims, torch.from_numpy(edit.new.astype(np.float64)).movedim(edit.axis, 0))
    for dim, value in zip(dims, old, strict=True):
        _FOUND.setdefault((id(parameter), dim), {})[edit] = value

    def put_back() -> None:
        last = {}
        with _LOCK:
            for dim in dims:
                found = _FOUND[id(parameter), dim]
                later = [*found][[*found].index(edit) + 1 :]
                value = found.pop(edit)
                if later:  # it still runs, and puts this back at its end
                    found[later[0]] = value
                else:
                    last[dim] = value
                if not found:
                    del _FOUND[id(parameter), dim]
            if last:
                put([*last], torch.stack([*last.values()]))

    return put_back
