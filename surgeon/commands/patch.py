"""``surgeon patch``: edit the weights themselves."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from surgeon.commands.options import (
    Force,
    Json,
    Method,
    MinDamage,
    MinLayers,
    Model,
    NoOnnx,
    OnnxDtype,
    RankingData,
    Revision,
    Sigma,
    SitesPattern,
    TextColumn,
    is_onnx,
    ranking_texts,
    refuse_dtype,
    refuse_options,
    settling,
)
from surgeon.edit.recipe import (
    PARAMS,
    Mode,
    Recipe,
    parse_names,
    parse_numbers,
)
from surgeon.edit.recipe_file import load_recipe
from surgeon.errors import OutputError, SelectionError
from surgeon.families import ROLES
from surgeon.ranking import DEFAULT, find_detector
from surgeon.ranking.ranking import SIGMA


def patch(
    model: Model,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="The artifact to make."),
    ] = None,
    remove_outliers: Annotated[
        int | None,
        typer.Option(metavar="N", help="Edit the N strongest outliers of the criterion."),
    ] = None,
    dims: Annotated[
        str | None, typer.Option(metavar="LIST", help="Edit these dimensions, such as 308,381.")
    ] = None,
    random: Annotated[
        int | None, typer.Option(metavar="N", help="Edit N dimensions drawn with --seed.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(metavar="FILE|NAME", help="Do what a recipe says; takes no other choice."),
    ] = None,
    seed: Annotated[int, typer.Option(help="For --random.")] = 0,
    method: Method = DEFAULT,
    data: RankingData = None,
    text_column: TextColumn = None,
    sigma: Sigma = SIGMA,
    min_layers: MinLayers = None,
    min_damage: MinDamage = None,
    relax: Annotated[
        bool, typer.Option("--relax", help="Take the N strongest, outliers or not.")
    ] = False,
    revision: Revision = None,
    sites_pattern: SitesPattern = None,
    mode: Annotated[
        Mode,
        typer.Option(help="Set to zero, scale by --factor, or set to the mean of the vector."),
    ] = "zero",
    factor: Annotated[float | None, typer.Option(metavar="F", help="For --mode scale.")] = None,
    params: Annotated[
        str, typer.Option(metavar="LIST", help="Which of gain and bias to edit.")
    ] = "gain,bias",
    layers: Annotated[
        str | None, typer.Option(metavar="LIST", help="Only these layers, such as 0-5,11.")
    ] = None,
    sites: Annotated[
        str,
        typer.Option(
            metavar="LIST", help="output (the last operation), attention, embeddings, final; all."
        ),
    ] = "output",
    no_onnx: NoOnnx = False,
    dtype: OnnxDtype = "float32",
    record_only: Annotated[
        bool,
        typer.Option(
            "--record-only",
            help="Write the edit alone, as one small file for surgeon apply, to the output.",
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
    it was. The artifact holds them, the same in ONNX, a record of every edit, and what undoes it.
    An existing .onnx file is edited in place of weights.
    """
    from surgeon import (
        console,
        make_onnx_plan,
        make_plan,
        open_checkpoint,
        open_onnx,
        write_artifact,
        write_onnx_artifact,
        write_small_patch,
    )

    find_detector(method)
    asked = recipe_of(
        recipe,
        dims=None if dims is None else parse_numbers("--dims", dims),
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
        params=parse_names("--params", params, PARAMS),
        layers=None if layers is None else parse_numbers("--layers", layers),
        sites=parse_names("--sites", sites, (*ROLES, "all")),
    )
    if recipe is None:
        _refuse_idle(asked)
    if no_onnx or record_only:
        refuse_dtype(dtype)
    if output is None and not dry_run:
        wanted = "-o FILE: name the file" if record_only else "-o DIR: name the directory"
        raise OutputError(f"{wanted} to make, or look first with --dry-run")
    if is_onnx(model):
        refuse_options(
            model,
            revision=revision,
            record_only=record_only,
            no_onnx=no_onnx,
            dtype=dtype if dtype != "float32" else None,
            data=data,
            text_column=text_column,
            method=asked.method if find_detector(asked.method).needs_model else None,
        )
        planned = make_onnx_plan(open_onnx(Path(model), sites_pattern), asked)
        console.show_inferred(planned)
        plan, settle = planned.plan, None
        write = partial(write_onnx_artifact, planned)
    else:
        with console.shown_progress() as progress:
            checkpoint = open_checkpoint(
                model, revision=revision, sites_pattern=sites_pattern, progress=progress
            )
            texts = ranking_texts(data, text_column)
            plan = make_plan(checkpoint, asked, texts=texts, progress=progress)
        count = f"--remove-outliers {len(plan.dims)}"
        settle = settling("patch", model, revision, sites_pattern, count)
        write = partial(write_artifact, plan, onnx=not no_onnx, dtype=dtype)
    if doubt := other_model(asked, f"{model} {plan.checkpoint.directory} {plan.checkpoint.name}"):
        console.print_note(f"Note: {doubt}.")
    if output is None or dry_run:
        console.show_plan(plan, json=json)
    elif record_only:
        with console.shown_progress() as progress:
            size = write_small_patch(plan, output, force=force, progress=progress)
        console.show_small_patch(plan, output, size, json=json)
    else:
        with console.shown_progress() as progress:
            record = write(output, force=force, progress=progress)
        console.show_record(record, output, json=json)
    console.show_weakness(plan, json=json, settle=settle)


def _refuse_idle(recipe: Recipe) -> None:
    """Refuse options that change nothing about how these dimensions are chosen."""
    ranked = ("method", "sigma", "min_layers", "min_damage", "relax")
    idle = (() if recipe.remove_outliers else ranked) + (() if recipe.random else ("seed",))
    for field in dataclasses.fields(Recipe):
        if field.name in idle and getattr(recipe, field.name) != field.default:
            owner = "--random" if field.name == "seed" else "--remove-outliers"
            raise SelectionError(f"--{field.name.replace('_', '-')}: goes with {owner} N alone")


def recipe_of(name_or_path: str | None, **options: Any) -> Recipe:
    """Make a recipe of the options, or load the named one, which takes no option beside it."""
    if name_or_path is None:
        return Recipe(**options)
    defaults = {field.name: field.default for field in dataclasses.fields(Recipe)}
    for name, value in options.items():
        if value != defaults[name]:
            option = name.replace("_", "-")
            raise SelectionError(f"--{option}: a recipe says it all; drop --recipe or this option")
    return load_recipe(name_or_path)


def other_model(recipe: Recipe, name: str) -> str | None:
    """Return what there is to doubt, if a recipe's dims are those of a model of another name."""
    if recipe.dims is None or not recipe.model or _plain(recipe.model) in _plain(name):
        return None
    return f"the recipe's dims are those of {recipe.model}, and no name of this model says that"


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name.casefold()))
