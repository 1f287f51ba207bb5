"""``surgeon eval``: prove on onnxruntime what a patch did."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from surgeon.commands.options import ArtifactDirectory, Json
from surgeon.errors import CheckFailed


def evaluate(
    artifact: ArtifactDirectory,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="One text per line; without it, English sentences."),
    ] = None,
    controls: Annotated[int, typer.Option(help="How many random removals to compare with.")] = 10,
    seed: Annotated[int, typer.Option(help="For masks, controls and the interval.")] = 0,
    mask_rate: Annotated[
        float, typer.Option(help="Share of tokens masked, for a masked language model.")
    ] = 0.15,
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
        Literal["degraded", "intact"] | None,
        typer.Option(help="Exit with 1 unless this is the verdict."),
    ] = None,
    json: Json = False,
) -> None:
    """Prove on onnxruntime what a patch did.

    Compares the patched model with its baseline and with random removals. The baseline is
    rebuilt from the artifact alone. The same texts and masks go through every
    variant; the verdict is degraded, intact or inconclusive, and surgeon/eval.json keeps it all.
    """
    from surgeon import console, read_texts, save_evaluation
    from surgeon import evaluate as run

    with console.shown_progress() as progress:
        evaluation = run(
            artifact,
            texts=read_texts(data) if data is not None else None,
            controls=controls,
            seed=seed,
            mask_rate=mask_rate,
            provider=provider,
            batch_size=batch_size,
            dose=dose,
            until_certain=until_certain,
            resume=resume,
            progress=progress,
        )
    save_evaluation(evaluation, artifact)
    console.show_evaluation(evaluation, json=json)
    if expect is not None and evaluation.verdict != expect:
        raise CheckFailed(f"--expect {expect}: the verdict is {evaluation.verdict}")
