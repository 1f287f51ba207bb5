"""Options that more than one command takes, each described once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A model directory, a .safetensors file in one, an .onnx file, or a Hub id.",
    ),
]
Revision = Annotated[
    str | None,
    typer.Option(metavar="REV", help="Branch, tag or commit of a model on the Hub."),
]
SitesPattern = Annotated[
    str | None,
    typer.Option(
        metavar="REGEX",
        help="For an unknown architecture: the paths of the modules that end each layer; in an "
        ".onnx file, the names of the nodes or initializers.",
    ),
]
ArtifactDirectory = Annotated[
    Path, typer.Argument(metavar="ARTIFACT", help="A directory that surgeon patch made.")
]
Output = Annotated[
    Path, typer.Option("--output", "-o", metavar="DIR", help="The directory to make.")
]
Force = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Replace the output if it exists. What surgeon did not make is kept, as DIR.replaced.",
    ),
]
NoOnnx = Annotated[
    bool, typer.Option("--no-onnx", help="Make the safetensors half alone, without torch.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
Sigma = Annotated[
    float, typer.Option(help="Standard deviations beyond which a gain or bias is flagged.")
]
MinLayers = Annotated[
    float,
    typer.Option(
        help="Layers that must flag an outlier: a count, or a share of all layers below 1."
    ),
]
