"""``surgeon eval``: prove on onnxruntime what a patch did."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from surgeon.commands.options import ArtifactDirectory, Json
from surgeon.errors import CheckFailed, EvaluationError
from surgeon.evaluation.result import Evaluation
from surgeon.surgery.expectation import recorded_settings
from surgeon.surgery.record import read_record


def evaluate(
    artifact: ArtifactDirectory,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="One text per line; without it, English sentences."),
    ] = None,
    controls: Annotated[
        int | None, typer.Option(help="How many random removals to compare with; by default 10.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="For masks, controls and the interval; by default 0.")
    ] = None,
    mask_rate: Annotated[
        float | None,
        typer.Option(help="Share of tokens masked, for a masked language model; by default 0.15."),
    ] = None,
    provider: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="Where onnxruntime runs.")
    ] = "auto",
    batch_size: Annotated[
        int | None,
        typer.Option(metavar="N", help="Texts that run at once; changes the speed alone."),
    ] = None,
    dose: Annotated[
        bool, typer.Option("--dose", help="Score the first dims alone too: one, two, and so on.")
    ] = False,
    until_certain: Annotated[
        bool,
        typer.Option(
            "--until-certain",
            help="Stop once an interval valid at any number of texts settles the verdict.",
        ),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on where the same evaluation was interrupted."),
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
    variant; the verdict is degraded, intact or inconclusive, and surgeon/eval.json keeps it all.
    What the recipe says of its evaluation holds where an option does not say otherwise.
    """
    from surgeon import console, read_texts, save_evaluation
    from surgeon import evaluate as run

    options = {
        "data": data,
        "controls": controls,
        "seed": seed,
        "mask_rate": mask_rate,
        "dose": dose or None,
        "until_certain": until_certain or None,
    }
    settings = _settings(artifact, options)
    texts = read_texts(Path(settings.pop("data"))) if "data" in settings else None
    with console.shown_progress() as progress:
        evaluation = run(
            artifact,
            texts=texts,
            provider=provider,
            batch_size=batch_size,
            resume=resume,
            progress=progress,
            **settings,
        )
    save_evaluation(evaluation, artifact)
    console.show_evaluation(evaluation, json=json)
    if expect is not None:
        _check(evaluation, expect)


def _settings(artifact: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Return what the recipe says of its evaluation, under the options that were given."""
    recorded = recorded_settings(read_record(artifact).recipe).given()
    recorded.pop("task", None)  # of the expectation; the graph says what can be scored
    return {**recorded, **{name: value for name, value in options.items() if value is not None}}


def _check(evaluation: Evaluation, expect: str) -> None:
    wanted = evaluation.expected if expect == "recipe" else expect
    if wanted is None:
        raise EvaluationError(
            f"--expect recipe: the recipe expects no verdict of {evaluation.task}; name one"
        )
    if evaluation.verdict != wanted:
        raise CheckFailed(f"--expect {expect}: the verdict is {evaluation.verdict}")
