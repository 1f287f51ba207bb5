"""Recipe × checkpoint, resolved: every tensor, index, old value and new value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from surgeon.edit.changes import Edit, Splice, count_changed, finite_or_none, new_values
from surgeon.edit.files import path_in_artifact
from surgeon.edit.recipe import Recipe
from surgeon.edit.record import OnnxPatch
from surgeon.errors import (
    WEIGHTS_ONLY,
    CheckpointError,
    EvaluationError,
    ExportError,
    SelectionError,
)
from surgeon.families import Site
from surgeon.harmless import from_to
from surgeon.model import Checkpoint
from surgeon.model.tensors import FLOATS, quantized
from surgeon.progress import Progress, silent
from surgeon.ranking import MEASURED, Dimension, Options, Ranking, find_detector, rank_dimensions
from surgeon.text import GivenTexts, TextsUsed

_NO_BIAS = {
    "rmsnorm": "RMSNorm has no bias",
    "layernorm": "the LayerNorms have no bias here",
    "dense": "the dense layers have no bias here",
}
_CANDIDATES_SHOWN = 5
_PRINTED = ("tensor", "stack", "role", "kind", "layer", "param", "axis", "offset")


@dataclass(frozen=True, eq=False)
class Plan:
    """What an operation will do to a checkpoint, scalar by scalar.

    Attributes:
        checkpoint: the model.
        recipe: what was asked for.
        dims: the dimensions that it means here.
        edits: what becomes of each tensor.
        ranking: what chose the dims, unless they were named or drawn.
        ranked_on: the texts that it read.
        splices: what else changes in the files, by their names in the artifact.
        onnx_patch: what the record says of these.
    """

    checkpoint: Checkpoint
    recipe: Recipe
    dims: tuple[int, ...]
    edits: tuple[Edit, ...]
    ranking: Ranking | None = None
    ranked_on: TextsUsed | None = None
    splices: Mapping[str, tuple[Splice, ...]] = field(default_factory=dict)
    onnx_patch: OnnxPatch | None = None

    def __repr__(self) -> str:
        return f"<Plan of {self.checkpoint.name}: dimensions {', '.join(map(str, self.dims))}>"

    @property
    def parameters_changed(self) -> int:
        """How many scalars end up with another value."""
        return sum(edit.changed for edit in self.edits)

    @property
    def relaxed(self) -> str:
        """Which of the dims are outliers, where the method that chose them took others too."""
        if self.ranking is None or set(self.dims) <= set(self.ranking.outliers):
            return ""
        met = [str(dim) for dim in self.dims if dim in self.ranking.outliers]
        return f"outliers among them: {', '.join(met) or 'none'}"

    @property
    def notes(self) -> tuple[str, ...]:
        """What is edited in place of what a person asked for or the default branch has."""
        of = self.checkpoint.conversion
        converted = (f"weights of {of}, the conversion of its pickle",) if of else ()
        if set(self.recipe.params) != {"gain", "bias"}:
            return converted
        kinds = {edit.kind for edit in self.edits}
        kinds -= {edit.kind for edit in self.edits if edit.param == "bias"}
        without = (f"{reason}: gains alone" for kind, reason in _NO_BIAS.items() if kind in kinds)
        return (*converted, *without)

    def to_json(self) -> dict[str, Any]:
        """Return the document that ``patch --dry-run --json`` prints."""
        return {
            "model": self.checkpoint.name,
            "dims": list(self.dims),
            "parameters_changed": self.parameters_changed,
            "parameters_total": self.checkpoint.parameters_total,
            "notes": list(self.notes),
            "edits": [
                {
                    **{name: getattr(edit, name) for name in _PRINTED},
                    "old": finite_or_none(edit.old),
                    "new": finite_or_none(edit.new),
                }
                for edit in self.edits
            ],
        }


def make_plan(
    checkpoint: Checkpoint,
    recipe: Recipe,
    *,
    texts: GivenTexts | None = None,
    device: Any = "auto",
    progress: Progress = silent,
) -> Plan:
    """Resolve a recipe on a checkpoint. Nothing is written.

    Args:
        checkpoint: the model.
        recipe: what was asked for.
        texts: what ranks, for a method that runs the model: texts, strings, or a file with one text
            per line (None: the built-in sample that ranks, which is not the one that evaluates).
        device: where such a method runs it, in words or PyTorch's: cpu, cuda, mps, or auto, the
            best that is there.
        progress: called at each step of such a method.

    Raises:
        SelectionError: a dimension, layer or site is not there, too few dimensions meet the
            criterion and ``relax`` is off, nothing asks for the texts or the device, or there is
            no such device.
        CheckpointError: a tensor cannot be edited exactly.
        ExportError, EvaluationError: as ``rank_dimensions``, where the recipe names a method.
    """
    dims, ranking = _select_dims(checkpoint, recipe, texts, device, progress)
    if ranking:
        recipe = recipe.model_copy(update={"method": ranking.method})
    edits = edits_meant(checkpoint, recipe, dims)
    return Plan(checkpoint, recipe, dims, edits, ranking, ranking.text if ranking else None)


def edits_meant(checkpoint: Checkpoint, recipe: Recipe, dims: tuple[int, ...]) -> tuple[Edit, ...]:
    """Return what a recipe does to a checkpoint once its dimensions are known.

    An edit that comes from elsewhere, of a small patch or a record, must be one of these.

    Raises:
        SelectionError: a dimension, layer or site is not there, or the recipe means others.
        CheckpointError: a tensor cannot be edited exactly.
    """
    count = recipe.remove_outliers or recipe.random or len(dims)
    if len(dims) != count or dims != (recipe.dims or dims) or len(set(dims)) != count:
        raise SelectionError(f"dimensions {list(dims)}: the recipe means others")
    hidden = checkpoint.hidden_size
    if missing := [dim for dim in dims if not 0 <= dim < hidden]:
        raise SelectionError(
            f"`dims`: {checkpoint.name} has no dimension {missing[0]}; "
            f"its hidden size is {hidden}, so they run from 0 to {hidden - 1}"
        )
    sites = _select_sites(checkpoint, recipe)
    edits = tuple(
        _edit(checkpoint, recipe, site, param, name, dims)
        for site in sites
        for param, name in (("gain", site.gain), ("bias", site.bias))
        if param in recipe.params and name is not None  # a norm may have no bias
    )
    if not edits:
        kinds = {site.kind for site in sites}
        why = " and ".join(reason for kind, reason in _NO_BIAS.items() if kind in kinds)
        raise SelectionError(
            f"`params` {','.join(recipe.params)}: {checkpoint.name}: {why}; use `params` gain"
        )
    return edits


def draw_dims(
    hidden: int, count: int, rng: np.random.Generator, without: tuple[int, ...] = ()
) -> tuple[int, ...]:
    """Draw ``count`` different dimensions of ``hidden``, none of them in ``without``, sorted."""
    rest = np.setdiff1d(np.arange(hidden), without)
    return tuple(sorted(int(dim) for dim in rng.choice(rest, size=count, replace=False)))


def _select_dims(
    checkpoint: Checkpoint,
    recipe: Recipe,
    texts: GivenTexts | None,
    device: str,
    progress: Progress,
) -> tuple[tuple[int, ...], Ranking | None]:
    """Return the dimensions that a recipe means, and the ranking if one chose them."""
    hidden = checkpoint.hidden_size
    if texts is not None and recipe.remove_outliers is None:
        raise SelectionError(
            "`texts`: text ranks dimensions for `remove_outliers` N `method` "
            f"{MEASURED}, and nothing else asks for a ranking"
        )
    if device != "auto" and recipe.remove_outliers is None:
        raise SelectionError("`device`: goes with `remove_outliers` N only")
    if recipe.dims is not None:
        return recipe.dims, None
    count = recipe.remove_outliers or recipe.random or 0
    if count > hidden:
        way = "random" if recipe.random else "remove_outliers"
        raise SelectionError(f"`{way}` {count}: there are {hidden} in all")
    if recipe.random is not None:
        return draw_dims(hidden, recipe.random, np.random.default_rng(recipe.seed)), None
    options = Options(
        sigma=recipe.sigma,
        min_layers=recipe.min_layers,
        texts=texts,
        min_damage=recipe.min_damage,
        count=count if "count" in find_detector(recipe.method or MEASURED).takes else None,
        device=device,
    )
    ranking = _rank(checkpoint, recipe, options, progress)
    if len(ranking.outliers) < count and not recipe.relax:
        raise SelectionError(_too_few(checkpoint, ranking, count))
    return tuple(d.dim for d in ranking.dimensions[:count]), ranking


def _rank(checkpoint: Checkpoint, recipe: Recipe, options: Options, progress: Progress) -> Ranking:
    """Rank as a recipe says; where it does not say how, and nothing can be measured, ask."""
    if recipe.method is not None:
        return rank_dimensions(checkpoint, recipe.method, options, progress=progress)
    try:
        return rank_dimensions(checkpoint, MEASURED, options, progress=progress)
    except (CheckpointError, EvaluationError, ExportError) as error:
        instead = "" if WEIGHTS_ONLY in str(error) else f"; {WEIGHTS_ONLY}"
        raise SelectionError(
            f"`remove_outliers` {recipe.remove_outliers}: measures what removals do, which is not "
            f"possible here: {error}{instead}, or name them with `dims`"
        ) from error


def _too_few(checkpoint: Checkpoint, ranking: Ranking, count: int) -> str:
    shown = ranking.dimensions[: max(count, _CANDIDATES_SHOWN)]
    candidates = ", ".join(f"{d.dim} ({_evidence_of(d, ranking)})" for d in shown)
    chosen = ",".join(str(d.dim) for d in ranking.dimensions[:count])
    settle = ""
    if checkpoint.can_run and not find_detector(ranking.method).needs_model:
        settle = (
            f", or measure what they do with `remove_outliers` {count} `method` {MEASURED}; "
            "weights alone are weak evidence"
        )
    return (
        f"`remove_outliers` {count}: {len(ranking.outliers)} of {ranking.model}'s dimensions meet "
        f"the criterion ({ranking.evidence}: {ranking.criterion}). Strongest candidates: "
        f"{candidates}. Choose with `dims` {chosen} or take the {count} strongest all the same "
        f"with `relax`{settle}"
    )


def _evidence_of(dimension: Dimension, ranking: Ranking) -> str:
    if dimension.damage is None or dimension.interval is None:
        return f"{len(dimension.layers)} of {ranking.layers} layers"
    return f"damage {dimension.damage:.3g}, {from_to(dimension.interval, '.3g')}"


def _select_sites(checkpoint: Checkpoint, recipe: Recipe) -> tuple[Site, ...]:
    """Return the sites that a recipe's ``sites`` and ``layers`` name."""
    last = max(site.layer or 0 for site in checkpoint.sites)  # they count within a stack
    for layer in recipe.layers or ():
        if layer > last:
            raise SelectionError(
                f"`layers`: {checkpoint.name} has no layer {layer}; its layers are 0 to {last}"
            )
    there: set[str] = {site.role for site in checkpoint.sites}
    asked = there if "all" in recipe.sites else set(recipe.sites)
    for role in asked:
        if role not in there:
            raise SelectionError(
                f"`sites` {role}: {checkpoint.name} ({checkpoint.family.name}) has no such norm; "
                f"it has {', '.join(sorted(there))}"
            )
    return tuple(
        site
        for site in checkpoint.sites
        if site.role in asked
        and (recipe.layers is None or site.layer is None or site.layer in recipe.layers)
    )


def _edit(
    checkpoint: Checkpoint, recipe: Recipe, site: Site, param: str, name: str, dims: tuple[int, ...]
) -> Edit:
    tensor = checkpoint.read(name)
    _check_scales(checkpoint, recipe.mode, name)
    last = tensor.ndim - 1
    axis, offset = (site.axis, site.gain_offset) if param == "gain" else (last, 0.0)
    if tensor.dtype == np.uint8 and axis == last:  # two dimensions share a byte
        raise quantized(checkpoint.homes[name].path, checkpoint.tensors[name])
    old = np.take(tensor, dims, axis=axis)
    where = f"{checkpoint.where(name)}: {name}"
    new = new_values(where, tensor, axis, dims, recipe.mode, recipe.factor, offset)
    return Edit(
        file=path_in_artifact(checkpoint, checkpoint.homes[name].path),
        tensor=name,
        role=site.role,
        kind=site.kind,
        layer=site.layer,
        param=param,
        axis=axis,
        dims=dims,
        offset=offset,
        scalars=old.size * (2 if old.dtype == np.uint8 else 1),
        changed=count_changed(old, new),
        old=old,
        new=new,
        stack=site.stack,
    )


def _check_scales(checkpoint: Checkpoint, mode: str, name: str) -> None:
    """Refuse a mode that means nothing on the stored values of a weight, which count by scales.

    Zero stays zero by any scale that is finite, and a factor commutes with it; but codes are few.
    """
    scales, info = checkpoint.read_scales(name), checkpoint.tensors[name]
    said = f"`mode` {mode}: {checkpoint.where(name)}: tensor {name} is "
    if info.dtype not in FLOATS and mode != "zero":
        raise CheckpointError(
            f"{said}stored as {info.dtype}, quantized, and 0 alone is exact there; use `mode` zero"
        )
    if mode == "mean" and scales is not None and scales.size > 1:
        raise CheckpointError(
            f"{said}quantized, by the {scales.size} scales of {checkpoint.scales_of(name)[0]}, so "
            "that the mean of what is stored is not that of the weights; use `mode` zero or scale"
        )
