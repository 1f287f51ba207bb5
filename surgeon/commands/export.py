"""``surgeon export``: ONNX without surgery."""

from __future__ import annotations

from surgeon.commands.options import (
    Force,
    Json,
    Model,
    OnnxDtype,
    Output,
    Revision,
    SitesPattern,
)


def export(
    model: Model,
    output: Output,
    revision: Revision = None,
    sites_pattern: SitesPattern = None,
    dtype: OnnxDtype = "float32",
    force: Force = False,
    json: Json = False,
) -> None:
    """Export MODEL to ONNX as it is.

    The output has onnx/model.onnx, the configuration and the tokenizer, where Optimum and
    transformers.js look for them. The graph is compared with PyTorch, and every vector that a
    patch would edit is an initializer under its checkpoint name.
    """
    from surgeon import console, open_checkpoint
    from surgeon import export as run

    with console.shown_progress() as progress:
        checkpoint = open_checkpoint(
            model, revision=revision, sites_pattern=sites_pattern, progress=progress
        )
        done = run(checkpoint, output, dtype=dtype, force=force, progress=progress)
    console.show_exported(done, output, json=json)
