"""``surgeon export``: ONNX without surgery."""

from __future__ import annotations

import surgeon
from surgeon import console
from surgeon.commands.options import (
    Force,
    Fresh,
    Json,
    NoParity,
    OnnxDtype,
    Output,
    Revision,
    Standalone,
    Weights,
    WeightsPattern,
    graph_settings,
)


def export(
    model: Weights,
    output: Output,
    revision: Revision = None,
    sites_pattern: WeightsPattern = None,
    dtype: OnnxDtype = "float32",
    standalone: Standalone = False,
    fresh: Fresh = False,
    no_parity: NoParity = False,
    force: Force = False,
    json: Json = False,
) -> None:
    """Export MODEL to ONNX as it is.

    The output has onnx/model.onnx, its weights as they are stored, the configuration and the
    tokenizer, where Optimum and transformers.js look for them. The graph is compared with PyTorch,
    and every weight is an initializer under its checkpoint name.
    """
    graph = graph_settings(locals())
    with console.shown_progress() as progress:
        checkpoint = surgeon.open_checkpoint(
            model, revision=revision, sites_pattern=sites_pattern, progress=progress
        )
        done = surgeon.export(checkpoint, output, **graph, force=force, progress=progress)
    console.show_exported(done, output, json=json)
