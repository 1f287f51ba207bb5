"""``surgeon recipes``: the operations that ship with surgeon, and checks of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from surgeon import console
from surgeon.commands.options import Json
from surgeon.errors import SelectionError

recipes = typer.Typer(add_completion=False, rich_markup_mode=None)

Name = Annotated[str, typer.Argument(metavar="NAME|FILE", help="A name of the list, or a file.")]


@recipes.callback(invoke_without_command=True)
def list_recipes(context: typer.Context, json: Json = False) -> None:
    """List the recipes that ship with surgeon, show and check them.

    A recipe is an operation as a YAML file: surgeon patch MODEL --recipe NAME|FILE performs it.
    """
    if context.invoked_subcommand is None:
        list_(json=json)
    elif json:
        raise SelectionError("--json: give it after the command, as in surgeon recipes list --json")


@recipes.command("list")
def list_(json: Json = False) -> None:
    """List the recipes that ship with surgeon."""
    from surgeon.edit.recipe_file import load_recipe, shipped_recipes

    found = {name: load_recipe(name) for name in shipped_recipes()}
    console.show_recipes(found, json=json)


@recipes.command()
def show(name: Name, json: Json = False) -> None:
    """Print a recipe: its file as it is, or with --json every field."""
    from surgeon.edit.recipe_file import find_recipe, load_recipe

    if json:
        console.print_json(load_recipe(name).to_json())
    else:
        for line in find_recipe(name).read_text("utf-8").rstrip().split("\n"):
            console.print_text(line)


@recipes.command()
def check(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Recipes to check, each a YAML file.")
    ],
    json: Json = False,
) -> None:
    """Find all that is wrong with recipes, by line and column."""
    from surgeon.edit.recipe import Recipe
    from surgeon.edit.recipe_file import check_file, find_recipe

    checked = [check_file(Recipe, find_recipe(str(file))) for file in files]
    console.show_checked_recipes(checked, json=json)
    if any(file.problems for file in checked):
        raise typer.Exit(SelectionError.exit_code)


@recipes.command()
def schema() -> None:
    """Print the JSON Schema of recipes, for editors to check by."""
    from surgeon.edit.recipe_file import recipe_schema

    console.print_json(recipe_schema())
