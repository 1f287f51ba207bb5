"""``surgeon diff``: what differs between two checkpoints."""

from __future__ import annotations

from typing import Annotated

import typer

from surgeon.commands.options import Json
from surgeon.errors import CheckFailed


def diff(
    a: Annotated[
        str, typer.Argument(metavar="A", help="A model directory, weight file or Hub id.")
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one, in any shard layout.")],
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 1 if they differ.")
    ] = False,
    json: Json = False,
) -> None:
    """Show what differs between two checkpoints, tensor by tensor.

    Tensors are compared bit for bit and in pieces, so that memory does not grow with the models.
    """
    from surgeon import compare, console, open_checkpoint

    with console.shown_progress() as progress:
        one, other = (open_checkpoint(model, progress=progress) for model in (a, b))
        comparison = compare(one, other, progress=progress)
    console.show_comparison(comparison, json=json)
    if exit_code and not comparison.identical:
        raise CheckFailed(f"{a} and {b} differ")
