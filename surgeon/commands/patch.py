"""``surgeon patch`` and ``apply``: edit the weights themselves."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

import surgeon
from surgeon import console
from surgeon.commands.options import (
    ONNX_FILE,
    Device,
    Force,
    Fresh,
    Json,
    MinDamage,
    MinLayers,
    NoOnnx,
    NoParity,
    OnnxDtype,
    Output,
    RankingData,
    Revision,
    Sigma,
    SitesPattern,
    Standalone,
    TextColumn,
    Weights,
    WeightsOrOnnx,
    graph_settings,
    is_onnx,
    numbers_of,
    ranking_texts,
    refuse_options,
    setting,
    settling,
)
from surgeon.edit.changes import Mode
from surgeon.edit.recipe import PARAMS, Recipe
from surgeon.edit.recipe_file import load_recipe
from surgeon.errors import OutputError, SelectionError
from surgeon.families import ROLES
from surgeon.ranking import DEFAULT, find_detector, rank_by_layernorm

_setting = partial(setting, Recipe)
_DEFAULTS = {name: field.default for name, field in Recipe.model_fields.items()}


def patch(
    model: WeightsOrOnnx,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="The artifact to make.")
    ] = None,
    remove_outliers: Annotated[int | None, _setting("remove_outliers", metavar="N")] = None,
    dims: Annotated[str | None, _setting("dims", metavar="LIST", such_as="308,381")] = None,
    random: Annotated[int | None, _setting("random", metavar="N")] = None,
    recipe: Annotated[
        str | None,
        typer.Option(metavar="FILE|NAME", help="Do what a recipe says, and nothing else."),
    ] = None,
    seed: Annotated[int, _setting("seed")] = _DEFAULTS["seed"],
    method: Annotated[
        str | None, _setting("method", metavar="NAME", show_default="ablation")
    ] = _DEFAULTS["method"],
    data: RankingData = None,
    text_column: TextColumn = None,
    device: Device = "auto",
    sigma: Sigma = _DEFAULTS["sigma"],
    min_layers: MinLayers = None,
    min_damage: MinDamage = None,
    relax: Annotated[bool, _setting("relax", "--relax")] = _DEFAULTS["relax"],
    revision: Revision = None,
    sites_pattern: SitesPattern = None,
    mode: Annotated[Mode, _setting("mode")] = _DEFAULTS["mode"],
    factor: Annotated[float | None, _setting("factor", metavar="F")] = None,
    params: Annotated[str, _setting("params", metavar="LIST")] = ",".join(PARAMS),
    layers: Annotated[str | None, _setting("layers", metavar="LIST", such_as="0-5,11")] = None,
    sites: Annotated[str, _setting("sites", metavar="LIST")] = ",".join(_DEFAULTS["sites"]),
    no_onnx: NoOnnx = False,
    dtype: OnnxDtype = "float32",
    standalone: Standalone = False,
    fresh: Fresh = False,
    no_parity: NoParity = False,
    record_only: Annotated[
        bool,
        typer.Option(
            "--record-only",
            help="Write only the edit, as one small file for surgeon apply, to the output.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show every edit and write nothing.")
    ] = False,
    force: Force = False,
    json: Json = False,
) -> None:
    """Zero, rescale or average dimensions in the weights.

    The weights are copied and the planned scalars written in place, so every other byte stays as
    it was. The artifact holds them, a view of them in ONNX, a record of every edit, and what undoes
    it.
    An existing .onnx file is edited in place of weights.
    """
    graph = graph_settings(locals())
    asked = recipe_of(
        recipe,
        dims=numbers_of("dims", dims),
        remove_outliers=remove_outliers,
        random=random,
        seed=seed,
        method=method,
        sigma=sigma,
        min_layers=min_layers,
        min_damage=min_damage,
        relax=relax,
        mode=mode,
        factor=factor,
        params=_names_of(params, PARAMS),
        layers=numbers_of("layers", layers),
        sites=_names_of(sites, (*ROLES, "all")),
    )
    if recipe is None:
        _refuse_idle(asked)
    if output is None and not dry_run:
        wanted = "-o FILE: name the file" if record_only else "-o DIR: name the directory"
        raise OutputError(f"{wanted} to make, or look first with --dry-run")
    if is_onnx(model):
        runs_model = asked.method is not None and find_detector(asked.method).needs_model
        refuse_options(
            ONNX_FILE.format(model),
            revision=revision,
            record_only=record_only,
            no_onnx=no_onnx,
            dtype=dtype != "float32",
            standalone=standalone,
            fresh=fresh,
            no_parity=no_parity,
            data=data,
            text_column=text_column,
            device=device != "auto",
            method=runs_model,
        )
        planned = surgeon.make_onnx_plan(surgeon.open_onnx(Path(model), sites_pattern), asked)
        console.show_inferred(planned)
        plan, settle = planned.plan, None
        write = partial(surgeon.write_onnx_artifact, planned)
    else:
        with console.shown_progress() as progress:
            checkpoint = surgeon.open_checkpoint(
                model, revision=revision, sites_pattern=sites_pattern, progress=progress
            )
            texts = ranking_texts(data, text_column)
            plan = surgeon.make_plan(
                checkpoint, asked, texts=texts, device=device, progress=progress
            )
        count = f"--remove-outliers {len(plan.dims)}"
        measured = settling("patch", model, revision, sites_pattern, count)
        settle = measured if checkpoint.can_run else None
        write = partial(surgeon.write_artifact, plan, onnx=not no_onnx, **graph)
    if doubt := other_model(asked, f"{model} {plan.checkpoint.directory} {plan.checkpoint.name}"):
        console.print_note(f"Note: {doubt}.")
    ranked = plan.ranking is not None and plan.ranking.method != DEFAULT
    paper = rank_by_layernorm(plan.checkpoint) if ranked else None
    console.show_choice(plan, paper, json=json, settle=settle)
    if output is None or dry_run:
        console.show_plan(plan, json=json)
    elif record_only:
        with console.shown_progress() as progress:
            size = surgeon.write_small_patch(plan, output, force=force, progress=progress)
        console.show_small_patch(plan, output, size, json=json)
    else:
        with console.shown_progress() as progress:
            record = write(output, force=force, progress=progress)
        console.show_record(record, output, json=json)


def _refuse_idle(recipe: Recipe) -> None:
    """Refuse options that change nothing about how these dimensions are chosen."""
    ranked = ("method", "sigma", "min_layers", "min_damage", "relax")
    idle = (() if recipe.remove_outliers else ranked) + (() if recipe.random else ("seed",))
    for name in idle:
        if getattr(recipe, name) != _DEFAULTS[name]:
            owner = "random" if name == "seed" else "remove_outliers"
            raise SelectionError(f"`{name}`: goes with `{owner}` N only")


def recipe_of(name_or_path: str | None, **options: Any) -> Recipe:
    """Make a recipe of the options, or load the named one, which takes no option beside it."""
    if name_or_path is None:
        return Recipe(**options)
    for name, value in options.items():
        if value != _DEFAULTS[name]:
            raise SelectionError(f"`{name}`: cannot be combined with `recipe`; drop one of them")
    return load_recipe(name_or_path)


def _names_of(text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """Parse ``gain,bias`` into names, in the order of those that are known."""
    names = dict.fromkeys(part.strip() for part in text.split(","))
    return tuple(sorted(names, key=lambda name: known.index(name) if name in known else -1))


def other_model(recipe: Recipe, name: str) -> str | None:
    """Return what there is to doubt, if a recipe's dims are those of a model of another name."""
    if recipe.dims is None or not recipe.model or _plain(recipe.model) in _plain(name):
        return None
    return f"the recipe's dims are those of {recipe.model}, and no name of this model says that"


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name.casefold()))


def apply(
    edit: Annotated[
        Path, typer.Argument(metavar="EDIT", help="A file that patch --record-only made.")
    ],
    model: Weights,
    output: Output,
    revision: Revision = None,
    no_onnx: NoOnnx = False,
    dtype: OnnxDtype = "float32",
    standalone: Standalone = False,
    fresh: Fresh = False,
    no_parity: NoParity = False,
    force: Force = False,
    json: Json = False,
) -> None:
    """Perform the small patch EDIT on MODEL, its base.

    The base is known by the hashes of its weight files; any other one is refused.
    """
    graph = graph_settings(locals())
    with console.shown_progress() as progress:
        checkpoint = surgeon.open_checkpoint(model, revision=revision, progress=progress)
        plan = surgeon.plan_from_small_patch(edit, checkpoint, progress=progress)
        record = surgeon.write_artifact(
            plan, output, onnx=not no_onnx, **graph, force=force, progress=progress
        )
    console.show_record(record, output, json=json)
