"""``surgeon apply``: perform a small patch on its base."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from surgeon.commands.options import (
    Force,
    Fresh,
    Json,
    NoOnnx,
    NoParity,
    OnnxDtype,
    Output,
    Revision,
    Standalone,
    Weights,
    graph_settings,
)


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
    from surgeon import console, open_checkpoint, plan_from_small_patch, write_artifact

    with console.shown_progress() as progress:
        checkpoint = open_checkpoint(model, revision=revision, progress=progress)
        plan = plan_from_small_patch(edit, checkpoint, progress=progress)
        record = write_artifact(
            plan, output, onnx=not no_onnx, **graph, force=force, progress=progress
        )
    console.show_record(record, output, json=json)
