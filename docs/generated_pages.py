"""Pages of the site that are made from the code when it is built, so that they say what it does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from surgeon.cli import app

_COPIED = {"recipes.md": "recipes/README.md", "changelog.md": "CHANGELOG.md"}


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages to the files of the site (a hook of mkdocs)."""
    from mkdocs.structure.files import File  # not needed for what a test compares

    root = Path(config.config_file_path).parent
    pages = {name: (root / source).read_text("utf-8") for name, source in _COPIED.items()}
    for name, content in {**pages, "commands.md": command_reference()}.items():
        files.append(File.generated(config, name, content=content))
    return files


def command_reference() -> str:
    """Return the reference of the command line, as Markdown: what each ``--help`` says."""
    group = typer.main.get_command(app)
    context = group.make_context("surgeon", [], resilient_parsing=True)
    lines = ["# Commands", "", "What `surgeon COMMAND --help` says, of this version."]
    for name in group.list_commands(context):
        lines += _command(group.get_command(context, name), f"surgeon {name}", context, "##")
    return "\n".join(lines) + "\n"


def _command(command: Any, name: str, parent: Any, level: str) -> Iterator[str]:
    context = type(parent)(command, info_name=name, parent=None)
    usage = " ".join(command.collect_usage_pieces(context))
    yield from ("", f"{level} {name}", "", f"    {name} {usage}", "", _text(command.help or ""))
    for parameter in command.params:
        declared, meaning = parameter.get_help_record(context)
        yield from ("", f"`{declared}`", f":   {_text(meaning)}")
    examples = re.findall(r"^ *(surgeon .*)$", command.epilog or "", re.MULTILINE)
    if examples:
        yield from ("", "Examples:", "", *(f"    {example}" for example in examples))
    if hasattr(command, "list_commands"):  # such as those of recipes
        for own in command.list_commands(context):
            yield from _command(command.get_command(context, own), f"{name} {own}", context, "###")


def _text(words: str) -> str:
    """Return plain text as Markdown that shows it as it is."""
    return re.sub(r"([*_<\[])", r"\\\1", words.replace("\b", ""))
