"""What is compared: the baseline, the patched model, and random controls of the same size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from surgeon.errors import EvaluationError
from surgeon.evaluation.artifact import Artifact
from surgeon.surgery.modes import new_values
from surgeon.surgery.selection import draw_dims
from surgeon.surgery.slices import with_slices


@dataclass(frozen=True)
class Variant:
    """One model of the comparison; ``dims`` are those edited in it."""

    name: str
    dims: tuple[int, ...]


BASELINE = Variant("baseline", ())


def draw_controls(artifact: Artifact, count: int, seed: int) -> tuple[Variant, ...]:
    """Draw ``count`` different sets of as many dims as were patched, from the rest.

    Raises:
        EvaluationError: there are not that many sets.
    """
    dims, hidden = artifact.record.dims, artifact.record.hidden_size
    possible = math.comb(hidden - len(dims), len(dims))
    if not 1 <= count <= possible:
        raise EvaluationError(
            f"--controls {count}: give a number from 1 to {possible}; a verdict needs controls, "
            f"and {len(dims)} of {hidden} dimensions are patched"
        )
    rng = np.random.default_rng([seed, len(dims)])
    drawn: dict[tuple[int, ...], None] = {}
    while len(drawn) < count:
        drawn[draw_dims(hidden, len(dims), rng, without=dims)] = None
    return tuple(Variant(f"control {i}", chosen) for i, chosen in enumerate(drawn, start=1))


def draw_doses(artifact: Artifact) -> tuple[Variant, ...]:
    """Return the removal of the first of the patched dims, of the first two, and so on to all."""
    dims = artifact.record.dims
    return tuple(Variant(f"dose {n}", dims[:n]) for n in range(1, len(dims) + 1))


def tensors_of(artifact: Artifact, variant: Variant) -> dict[str, npt.NDArray[np.floating[Any]]]:
    """Return the edited tensors as they are in a variant, in the graph's dtype.

    A control repeats the recipe's operation at its own dims, in the same tensors, in the
    checkpoint's own dtype.
    """
    dtype = np.dtype(artifact.facts.dtype)
    return {name: value.astype(dtype) for name, value in _edited(artifact, variant)}


def _edited(artifact: Artifact, variant: Variant) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    record = artifact.record
    if variant.dims == record.dims:
        yield from artifact.patched.items()
        return
    mode, factor = record.recipe["mode"], record.recipe["factor"]
    for edit in record.edits:
        tensor = artifact.baseline[edit.tensor]
        if variant.dims:
            values = new_values(tensor, edit.axis, variant.dims, mode, factor, edit.offset)
            tensor = with_slices(tensor, edit.axis, variant.dims, values)
        yield edit.tensor, tensor
