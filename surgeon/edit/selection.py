"""Which dimensions a recipe means on a given checkpoint."""

from __future__ import annotations

import numpy as np

from surgeon.edit.recipe import Recipe
from surgeon.errors import SelectionError
from surgeon.model import Checkpoint
from surgeon.progress import Progress, silent
from surgeon.ranking import (
    MEASURED,
    Dimension,
    Options,
    Ranking,
    find_detector,
    rank_dimensions,
)
from surgeon.text import Texts

_CANDIDATES_SHOWN = 5


def select_dims(
    checkpoint: Checkpoint,
    recipe: Recipe,
    texts: Texts | None = None,
    progress: Progress = silent,
) -> tuple[tuple[int, ...], Ranking | None]:
    """Resolve a recipe's choice of dimensions: return them, and the ranking if one chose them.

    Args:
        checkpoint: the model.
        recipe: what was asked for.
        texts: what a method that runs the model reads (None: the built-in sample that ranks).
        progress: called at each step of such a method.

    Raises:
        SelectionError: a dimension is beyond the hidden size, there are fewer dimensions than
            asked for, fewer than N meet the criterion and ``relax`` is off, or there are texts
            and nothing to rank with them.
    """
    hidden = checkpoint.hidden_size
    if texts is not None and recipe.remove_outliers is None:
        raise SelectionError(
            "--data: text ranks dimensions for --remove-outliers N --method "
            f"{MEASURED}, and nothing else asks for a ranking"
        )
    if recipe.dims is not None:
        for dim in recipe.dims:
            if not 0 <= dim < hidden:
                raise SelectionError(
                    f"--dims: {checkpoint.name} has no dimension {dim}; "
                    f"its hidden size is {hidden}, so they run from 0 to {hidden - 1}"
                )
        return recipe.dims, None
    if recipe.random is not None:
        return draw_dims(hidden, recipe.random, np.random.default_rng(recipe.seed)), None
    count = recipe.remove_outliers or 0
    if count > hidden:
        raise SelectionError(f"--remove-outliers {count}: there are {hidden} in all")
    options = Options(
        sigma=recipe.sigma,
        min_layers=recipe.min_layers,
        texts=texts,
        min_damage=recipe.min_damage,
        progress=progress,
    )
    ranking = rank_dimensions(checkpoint, recipe.method, options)
    if len(ranking.outliers) < count and not recipe.relax:
        raise SelectionError(_too_few(ranking, count))
    return tuple(d.dim for d in ranking.dimensions[:count]), ranking


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


def _too_few(ranking: Ranking, count: int) -> str:
    shown = ranking.dimensions[: max(count, _CANDIDATES_SHOWN)]
    candidates = ", ".join(f"{d.dim} ({_evidence_of(d, ranking)})" for d in shown)
    chosen = ",".join(str(d.dim) for d in ranking.dimensions[:count])
    settle = ""
    if not find_detector(ranking.method).needs_model:
        settle = (
            f", or measure what they do with --remove-outliers {count} --method {MEASURED}; "
            "weights alone are weak evidence"
        )
    return (
        f"--remove-outliers {count}: {len(ranking.outliers)} of {ranking.model}'s dimensions meet "
        f"the criterion ({ranking.evidence}: {ranking.criterion}). Strongest candidates: "
        f"{candidates}. Choose with --dims {chosen}, take the {count} strongest all the same "
        f"with --relax{settle}"
    )


def _evidence_of(dimension: Dimension, ranking: Ranking) -> str:
    if dimension.damage is None or dimension.interval is None:
        return f"{len(dimension.layers)} of {ranking.layers} layers"
    low, high = dimension.interval
    return f"damage {dimension.damage:.3g}, {low:.3g} to {high:.3g}"
