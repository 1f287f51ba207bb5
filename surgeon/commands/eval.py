"""``surgeon eval``: prove on onnxruntime what a patch did."""

from __future__ import annotations

import os
from functools import partial
from typing import Annotated, Literal

import typer

import surgeon
from surgeon import console
from surgeon.commands.options import ArtifactDirectory, Json, TextColumn, setting
from surgeon.edit.files import EVALUATIONS
from surgeon.errors import CheckFailed, EvaluationError
from surgeon.evaluation.result import Evaluation
from surgeon.model.files import FOLDER
from surgeon.tasks.registry import EvaluationSettings, TaskOptions
from surgeon.tasks.task import Masking

_setting = partial(setting, EvaluationSettings)
_PASSED_ON = (
    "metric", "margin", "controls", "seed", "provider", "batch_size", "dose", "until_certain",
    "quantize", "resume",
)  # fmt: skip
"""The options that ``surgeon.evaluate`` takes as they are."""


def evaluate(
    artifact: ArtifactDirectory,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|hf:NAME",
            help="One text per line, rows with columns (CSV, TSV, CoNLL, JSON, JSON Lines, "
            "Parquet), or data of the Hub, hf:org/name[:config][:split]; without it, English "
            "sentences.",
        ),
    ] = None,
    task: Annotated[list[str] | None, _setting("task", metavar="NAME")] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The metric that the verdict is about, such as Matthews; by default the task's.",
        ),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            metavar="SIZE",
            help="The smallest change of the metric that matters; by default 0.02 (of a squared "
            "error, that share of the labels' variance).",
        ),
    ] = None,
    controls: Annotated[int | None, _setting("controls")] = None,
    seed: Annotated[int | None, _setting("seed")] = None,
    mask_rate: Annotated[float | None, _setting("mask_rate", metavar="SHARE")] = None,
    masking: Annotated[Masking | None, _setting("masking")] = None,
    block: Annotated[int | None, _setting("block", metavar="N")] = None,
    stride: Annotated[int | None, _setting("stride", metavar="N")] = None,
    bos: Annotated[
        bool | None,
        _setting("bos", "--bos/--no-bos", show_default="pairs: --bos where the tokenizer has one"),
    ] = None,
    document: Annotated[bool | None, _setting("document", "--document")] = None,
    text_column: TextColumn = None,
    pair_column: Annotated[str | None, _setting("pair_column", metavar="NAME")] = None,
    label_column: Annotated[str | None, _setting("label_column", metavar="NAME")] = None,
    provider: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="Where onnxruntime runs.")
    ] = "auto",
    batch_size: Annotated[
        int | None,
        typer.Option(metavar="N", help="Texts that run at once; changes only the speed."),
    ] = None,
    dose: Annotated[bool | None, _setting("dose", "--dose")] = None,
    until_certain: Annotated[
        bool | None,
        _setting(
            "until_certain",
            "--until-certain/--all",
            show_default="--until-certain on the built-in sentences, else --all",
        ),
    ] = None,
    quantize: Annotated[Literal["int8"] | None, _setting("quantize")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where the same evaluation was interrupted.")
    ] = False,
    expect: Annotated[
        Literal["degraded", "intact", "recipe"] | None,
        typer.Option(help="Exit with 1 unless this is the verdict; recipe: the one it expects."),
    ] = None,
    json: Json = False,
) -> None:
    """Prove on onnxruntime what a patch did.

    Compares the patched model with its baseline and with random removals. The baseline is
    rebuilt from the artifact alone. The same texts and masks go through every
    variant; the verdict is degraded, intact or inconclusive. surgeon/eval.json keeps it all, and
    surgeon/evaluations/ the newest of each task and data set; several --task are scored in turn.
    What the recipe says of its evaluation holds where an option does not say otherwise.
    """
    given = locals()
    options = TaskOptions(**{name: given[name] for name in TaskOptions.model_fields})
    settings = {name: given[name] for name in _PASSED_ON}
    evaluations, tasks = [], task or (None,)
    # What is wrong whatever the scores are is refused before they are measured.
    for name in tasks:
        EvaluationSettings(task=name)
    for folder in (artifact / FOLDER, artifact / EVALUATIONS):
        if folder.is_dir() and not os.access(folder, os.W_OK):
            raise EvaluationError(
                f"{folder}: cannot be written to, and is where evaluations are kept; copy the "
                "artifact to another place (cp -rL)"
            )
    if expect == "recipe":
        expectation = surgeon.read_record(artifact).recipe.get("expect") or {}
        if not expectation.get("verdict"):
            raise EvaluationError(
                f"--expect recipe: the recipe of {artifact} expects no verdict; name one"
            )
    for name in tasks:
        with console.shown_progress() as progress:
            evaluation = surgeon.evaluate(
                artifact, texts=data, task=name, options=options, **settings, progress=progress
            )
        surgeon.save_evaluation(evaluation, artifact)
        evaluations.append(evaluation)
    console.show_evaluations(evaluations, json=json)
    if expect is not None:
        for evaluation in evaluations:
            _check(evaluation, expect)


def _check(evaluation: Evaluation, expect: str) -> None:
    wanted = evaluation.expected if expect == "recipe" else expect
    if wanted is None:
        raise EvaluationError(
            f"--expect recipe: the recipe expects no verdict of {evaluation.task}; name one"
        )
    if evaluation.verdict != wanted:
        raise CheckFailed(f"--expect {expect}: the verdict is {evaluation.verdict}")
