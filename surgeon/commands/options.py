"""Options that more than one command takes, each described once."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from surgeon.console.printing import as_options
from surgeon.edit.recipe import Recipe, parse_numbers
from surgeon.errors import SelectionError
from surgeon.ranking import MEASURED
from surgeon.settings import SettingsModel
from surgeon.tasks.registry import EvaluationSettings
from surgeon.text import Texts


def setting(
    group: type[SettingsModel], name: str, *declarations: str, such_as: str = "", **more: Any
) -> Any:
    """Return the option of a setting: its help is the sentence that documents it.

    Args:
        group: the settings that declare it.
        name: its name there.
        declarations: the option, where it is not ``--name``.
        such_as: an example, in the form of the command line.
        more: what else ``typer.Option`` takes.
    """
    sentence = " ".join((group.model_fields[name].description or "").split())
    if such_as:
        sentence = f"{sentence[:-1]}, such as {such_as}."
    return typer.Option(*declarations, help=as_options(sentence), **more)


def numbers_of(field: str, text: str | None) -> tuple[int, ...] | None:
    """Parse the option that is a list of numbers, if it was given.

    Raises:
        SelectionError: it is no such list.
    """
    try:
        return None if text is None else parse_numbers(text)
    except ValueError as error:
        raise SelectionError(f"`{field}` {text!r}: {error}") from error


Weights = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="A model directory, a .safetensors file, or a Hub id."),
]
WeightsOrOnnx = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A model directory, a .safetensors file, an .onnx file, or a Hub id."
    ),
]
Revision = Annotated[
    str | None, typer.Option(metavar="REV", help="Branch, tag or commit of a model on the Hub.")
]
_PATTERN = (
    "For an unknown architecture: the paths of the modules that end each layer (1+REGEX: norms "
    "that store their gain less 1)"
)
WeightsPattern = Annotated[str | None, typer.Option(metavar="REGEX", help=f"{_PATTERN}.")]
SitesPattern = Annotated[
    str | None,
    typer.Option(
        metavar="REGEX",
        help=f"{_PATTERN}; in an .onnx file, the names of the nodes or initializers.",
    ),
]
Plot = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Draw the z-scores and the ranking: FILE.png, .svg, .pdf or .html. An earlier picture "
        "there is replaced, and any other file kept, as FILE.replaced.",
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
        help="Replace the output if it exists. What surgeon did not make is kept, as "
        "OUTPUT.replaced.",
    ),
]
NoOnnx = Annotated[bool, typer.Option("--no-onnx", help="Make safetensors only, without torch.")]
OnnxDtype = Annotated[
    Literal["float32", "float16"],
    typer.Option(
        "--dtype",
        help="What the ONNX graph computes in; float16 has weights of its own, half as large.",
    ),
]
Standalone = Annotated[
    bool,
    typer.Option(
        "--standalone",
        help="Put the weights into the ONNX file, in place of a view of the safetensors.",
    ),
]
Fresh = Annotated[
    bool,
    typer.Option(
        "--fresh",
        help="Export the graph although one of this architecture is kept (surgeon cache).",
    ),
]
NoParity = Annotated[
    bool, typer.Option("--no-parity", help="Do not compare a new graph with PyTorch.")
]
EngineName = Annotated[
    Literal["local", "ray"], typer.Option("--engine", help="Processes on this machine, or Ray.")
]
Address = Annotated[
    str | None, typer.Option(help="Of a Ray cluster that runs; without it, one on this machine.")
]
Cpus = Annotated[float, typer.Option(help="CPUs that a worker declares to Ray.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
Sigma = Annotated[float, setting(Recipe, "sigma")]
MinLayers = Annotated[
    float | None,
    setting(Recipe, "min_layers", show_default="half; layernorm-count: more than a quarter"),
]
HalfOfLayers = Annotated[float, setting(Recipe, "min_layers")]  # of commands without --method
RankingData = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="FILE|hf:NAME",
        help="The text that ranks, for a method that runs the model: one per line, or the text "
        "column of a table; without it, English sentences that surgeon eval does not use.",
    ),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda", "mps"],
    typer.Option(
        help="Where a method that runs the model does so; auto is the best that PyTorch has here."
    ),
]
TextColumn = Annotated[str | None, setting(EvaluationSettings, "text_column", metavar="NAME")]
MinDamage = Annotated[
    float | None, setting(Recipe, "min_damage", show_default="0.1 nats, 0.05 of drift")
]


def graph_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return how the ONNX half is to be made, by the options above of a command's ``given``.

    Raises:
        SelectionError: there is one of an ONNX half that is not made.
    """
    dtype, standalone, fresh = given["dtype"], given["standalone"], given["fresh"]
    if given.get("no_onnx") or given.get("record_only"):
        refuse_options(
            "is about the ONNX half, which is not made here",
            **{f"dtype {dtype}": dtype != "float32"},
            standalone=standalone,
            fresh=fresh,
            no_parity=given["no_parity"],
        )
    parity = not given["no_parity"]
    return {"dtype": dtype, "standalone": standalone, "fresh": fresh, "parity": parity}


def ranking_texts(data: str | None, text_column: str | None) -> Texts | None:
    """Read the texts that rank; None for the built-in ones.

    Raises:
        SelectionError: a column is named, and no data to find it in.
        EvaluationError: the data cannot be read, or have no column for the text.
    """
    if data is None:
        if text_column is not None:
            raise SelectionError(f"--text-column {text_column}: is a column of --data; give both")
        return None
    from surgeon.tasks.data import read_texts_of
    from surgeon.tasks.table import Columns

    return read_texts_of(data, Columns(text_column))


def settling(
    command: str, model: str, revision: str | None, sites_pattern: str | None, *more: str
) -> str:
    """Return the command line that measures, of the same model, as it would be typed."""
    named = {"--revision": revision, "--sites-pattern": sites_pattern}
    options = [f"{name} {shlex.quote(value)}" for name, value in named.items() if value is not None]
    return " ".join(
        ["surgeon", command, shlex.quote(model), *options, *more, f"--method {MEASURED}"]
    )


def check_files(output: Path | None, plot: Path | None, *, force: bool) -> None:
    """Refuse, before anything is computed, ``--force`` of no file and a picture that cannot be.

    Raises:
        SelectionError: there is no file to replace, or the picture has an unknown suffix.
        OutputError: the picture could not be written there.
    """
    if force and output is None and plot is None:
        raise SelectionError("--force: replaces a file, and none is made; give -o FILE too")
    if plot is not None:
        from surgeon.figures import check_picture

        check_picture(plot)


def is_onnx(model: str) -> bool:
    """Tell whether MODEL names an ONNX file."""
    return Path(model).suffix == ".onnx"


ONNX_FILE = "{} is an ONNX file: only its weights are read; leave it out"
"""Why an option does not go with a MODEL that is one."""


def refuse_options(why: str, **given: object) -> None:
    """Refuse the first option that was given; a value that is false or None was not.

    Raises:
        SelectionError: there is one.
    """
    for name, value in given.items():
        if value:
            raise SelectionError(f"--{name.replace('_', '-')}: {why}")
