"""Which dimensions a recipe means on a given checkpoint."""

from __future__ import annotations

import numpy as np

from surgeon.checkpoint import Checkpoint
from surgeon.errors import SelectionError
from surgeon.outliers import DETECTORS, Ranking
from surgeon.surgery.recipe import Recipe

_CANDIDATES_SHOWN = 5


def select_dims(checkpoint: Checkpoint, recipe: Recipe) -> tuple[int, ...]:
    """Resolve a recipe's choice of dimensions.

    Raises:
        SelectionError: a dimension is beyond the hidden size, there are fewer dimensions than
            asked for, or fewer than N meet the criterion and ``relax`` is off.
    """
    hidden = checkpoint.hidden_size
    if recipe.dims is not None:
        for dim in recipe.dims:
            if not 0 <= dim < hidden:
                raise SelectionError(
                    f"--dims: {checkpoint.name} has no dimension {dim}; "
                    f"its hidden size is {hidden}, so they run from 0 to {hidden - 1}"
                )
        return recipe.dims
    if recipe.random is not None:
        return draw_dims(hidden, recipe.random, np.random.default_rng(recipe.seed))
    return _strongest(checkpoint, recipe, recipe.remove_outliers or 0)


def draw_dims(
    hidden: int, count: int, rng: np.random.Generator, without: tuple[int, ...] = ()
) -> tuple[int, ...]:
    """Draw ``count`` different dimensions of ``hidden``, none of them in ``without``, sorted.

    Raises:
        SelectionError: there are not that many.
    """
    rest = np.setdiff1d(np.arange(hidden), without)
    if count > rest.size:
        raise SelectionError(f"{count} random dimensions asked for, but only {rest.size} are left")
    return tuple(sorted(int(dim) for dim in rng.choice(rest, size=count, replace=False)))


def _strongest(checkpoint: Checkpoint, recipe: Recipe, count: int) -> tuple[int, ...]:
    if recipe.method not in DETECTORS:
        raise SelectionError(f"--method {recipe.method}: there is {', '.join(sorted(DETECTORS))}")
    detect = DETECTORS[recipe.method]
    ranking = detect(checkpoint, sigma=recipe.sigma, min_layers=recipe.min_layers)
    if count > ranking.hidden_size:
        raise SelectionError(f"--remove-outliers {count}: there are {ranking.hidden_size} in all")
    if len(ranking.outliers) < count and not recipe.relax:
        raise SelectionError(_too_few(ranking, count))
    return tuple(dimension.dim for dimension in ranking.dimensions[:count])


def _too_few(ranking: Ranking, count: int) -> str:
    shown = ranking.dimensions[: max(count, _CANDIDATES_SHOWN)]
    candidates = ", ".join(f"{d.dim} ({len(d.layers)} of {ranking.layers} layers)" for d in shown)
    chosen = ",".join(str(d.dim) for d in ranking.dimensions[:count])
    return (
        f"--remove-outliers {count}: {len(ranking.outliers)} of {ranking.model}'s dimensions meet "
        f"the criterion ({ranking.evidence} {ranking.criterion}). Strongest candidates: "
        f"{candidates}. Choose with --dims {chosen}, or take the {count} strongest all the same "
        "with --relax"
    )
