"""``surgeon cache``: the exported graphs that are kept."""

from __future__ import annotations

import typer

from surgeon import console
from surgeon.commands.options import Json

cache = typer.Typer(add_completion=False, rich_markup_mode=None)


@cache.callback(invoke_without_command=True)
def show(context: typer.Context) -> None:
    """List or remove the ONNX graphs that surgeon keeps.

    There is one for each architecture and dtype, without weights. SURGEON_CACHE, or
    XDG_CACHE_HOME, says where they are.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@cache.command("list")
def list_(json: Json = False) -> None:
    """List the graphs, those used last first."""
    from surgeon.onnx.cache import graphs_folder, list_graphs

    console.show_graphs(list_graphs(), graphs_folder(), json=json)


@cache.command()
def clear(json: Json = False) -> None:
    """Remove all graphs, so that the next patches export anew."""
    from surgeon.onnx.cache import clear_graphs, graphs_folder

    console.show_cleared(clear_graphs(), graphs_folder(), json=json)
