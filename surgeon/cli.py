"""The command line: registers the commands, and turns errors into one line and an exit code."""

from __future__ import annotations

import ast
import importlib
import io
import os
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from surgeon.errors import Interrupted, SurgeonError

_COMMANDS = {  # name on the command line → module and function in surgeon.commands
    "scan": "scan:scan",
    "patch": "patch:patch",
    "eval": "eval:evaluate",
    "restore": "artifact:restore",
    "verify": "artifact:verify",
    "diff": "artifact:diff",
    "apply": "patch:apply",
    "export": "export:export",
    "cache": "cache:cache",
    "push": "artifact:push",
    "report": "artifact:report",
    "recipes": "recipes:recipes",
    "sweep": "sweep:sweep",
    "atlas": "atlas:atlas",
    "trace": "trace:trace",
    "demo": "demo:demo",
}
EXAMPLES = {
    "scan": ("bert-base-uncased", "out/ --method ablation --plot scan.png"),
    "patch": ("bert-base-uncased --dims 308,381 -o out/", "model/ --recipe recipe.yaml -o out/"),
    "eval": ("out/", "out/ --task sts --data stsb-dev.csv --expect degraded"),
    "restore": ("out/ -o original/", "out/ -o original/ --force"),
    "verify": ("out/", "out/ --json"),
    "diff": ("model/ out/", "model/ out/ --exit-code"),
    "apply": ("edit.surgeon model/ -o out/", "edit.surgeon org/model --no-onnx -o out/"),
    "export": ("model/ -o exported/", "org/model --dtype float16 -o exported/"),
    "push": ("out/ me/bert-without-308", "out/ me/bert-without-308 --private"),
    "report": ("out/ -o report.html", "results/ -o report.html --force"),
    "sweep": ("grid.yaml --dry-run", "grid.yaml -o results/ --workers 2"),
    "atlas": ("models.txt -o atlas.parquet", "models.txt -o atlas.parquet --dry-run"),
    "trace": ("run/", "org/model --revisions 'step*' --plot trace.html"),
}
"""Arguments that show what each command is for, in its help."""

_GROUPS = {  # heading in the help of a command with many options → the options under it
    "Model": ("revision", "revisions", "skip", "sites_pattern"),
    "Dimensions": (
        *("remove_outliers", "dims", "random", "recipe", "relax", "method", "device", "sigma"),
        *("min_layers", "min_damage", "exhaustive", "compare"),
    ),
    "Edit": ("mode", "factor", "params", "layers", "sites"),
    "Task": ("task", "metric", "mask_rate", "masking", "block", "stride", "bos"),
    "Texts": ("data", "text_column", "document", "pair_column", "label_column"),
    "Verdict": ("margin", "controls", "dose", "until_certain", "quantize", "expect"),
    "ONNX": ("no_onnx", "dtype", "standalone", "fresh", "no_parity"),
    "Work": (
        *("provider", "batch_size", "resume", "engine", "workers", "address", "cpus", "gpus"),
        *("retry", "rate", "max_mb"),
    ),
    "Output": ("output", "force", "json", "plot", "top", "dry_run", "record_only"),
}
_HEADING = {option: heading for heading, options in _GROUPS.items() for option in options}
_MANY = 10  # options, from which on they are grouped

# What the loader of libraries, numpy, PyTorch and threads say where an address space is full.
_OUT_OF_MEMORY = ("failed to map segment", "allocate memory", "start new thread", "bad_alloc")
_PIPE_CLOSED = 141  # as a shell says it of a process that SIGPIPE ended


class _Command(TyperCommand):
    """A command whose help has its options in groups, where they are many."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        params = self.get_params(ctx)
        rows: dict[str, list[Any]] = {title: [] for title in ("Arguments", *_GROUPS, "Options")}
        for param in params:
            group = "Options" if len(params) < _MANY else _HEADING.get(str(param.name), "Options")
            title = "Arguments" if param.param_type_name == "argument" else group
            if row := param.get_help_record(ctx):
                rows[title].append(row)
        for title, found in rows.items():
            if found:
                with formatter.section(title):
                    formatter.write_dl(found)


class _Commands(TyperGroup):
    """The commands, each imported only when it is called."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        names: Any = dict.fromkeys(_COMMANDS)
        self.commands = names  # which the help lists, and of which one is meant by a misspelt one

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002  (typer's signature)
        if cmd_name not in _COMMANDS:
            return None
        module, _, function = _COMMANDS[cmd_name].partition(":")
        found = getattr(importlib.import_module(f"surgeon.commands.{module}"), function)
        if isinstance(found, typer.Typer):  # a command with commands of its own
            return typer.main.get_command(found)
        commands = typer.Typer(add_completion=False, rich_markup_mode=None)
        calls = [f"  surgeon {cmd_name} {arguments}" for arguments in EXAMPLES.get(cmd_name, ())]
        epilog = "\n".join(["\b", "Examples:", *calls]) if calls else None
        commands.command(cmd_name, cls=_Command, epilog=epilog)(found)
        return typer.main.get_command(commands)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002  (as above)
        with formatter.section("Commands"):
            formatter.write_dl([(name, _summary(name)) for name in _COMMANDS])

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if "" in args:  # a path would be the working directory
            raise SurgeonError("an argument is empty, such as a shell variable that is not set")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stopped:  # which typer would end without a word
            raise Interrupted(str(stopped) or "interrupted") from stopped
        except BrokenPipeError as closed:  # which typer would end with 1
            raise typer.Exit(_end_of_pipe()) from closed


def _summary(name: str) -> str:
    """Read the first line of a command's docstring; an import of them all takes a second."""
    module, _, function = _COMMANDS[name].partition(":")
    source = (Path(__file__).with_name("commands") / f"{module}.py").read_text("utf-8")
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    # Where a command has commands of its own, the first function says what they are for.
    described = next((node for node in functions if node.name == function), functions[0])
    return (ast.get_docstring(described) or "").partition("\n")[0]


app = typer.Typer(cls=_Commands, invoke_without_command=True, rich_markup_mode=None)


def _print_version(asked: bool) -> None:  # noqa: FBT001  (the signature typer calls)
    if asked:
        from surgeon import __version__

        typer.echo(f"surgeon {__version__}")
        raise typer.Exit


@app.callback()
def _surgeon(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001, FBT002  (a flag, and its callback acts)
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Find, edit and restore the outlier dimensions of Transformers, and prove the effect."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """Run the command line and exit: 0 done, 1 a check was not met, 2 wrong input or call."""
    _prepare_streams()
    _interrupt_on_signals()
    code = run(sys.argv[1:])
    if _received:  # what there was to say is said
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if _received and code == Interrupted.exit_code:
        code = 128 + _received[0]  # as a shell says it of a process that a signal ended
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = _end_of_pipe()
    except OSError as error:  # a full disk, most likely
        if code != 2:  # else that is what was said
            sys.stderr.write(f"surgeon: standard output: {_message(error)}\n")
        code = 2
        _discard(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done but Python's own end
    sys.exit(code)


_received: list[int] = []  # signals that ask for an end
_AGAIN = 2.0  # seconds after one, in which another is taken for the same


def _interrupt_on_signals() -> None:
    """Have what ends a job clean up as Ctrl-C does.

    A second one does not disturb the clean-up of the first, unless that takes long.
    """
    last = -_AGAIN

    def interrupt(number: int, frame: object) -> None:  # noqa: ARG001  (the signature of handlers)
        nonlocal last
        _received.append(number)
        if time.monotonic() - last >= _AGAIN:
            last = time.monotonic()
            raise KeyboardInterrupt

    untouched = (signal.SIG_DFL, signal.default_int_handler)  # else ignored, as under nohup
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) in untouched:
            signal.signal(number, interrupt)


def run(arguments: list[str]) -> int:
    """Run the command line and return its exit code.

    With ``SURGEON_DEBUG`` set, an error shows where it came from.
    """
    from surgeon import console

    console.show_log()
    try:
        code = app(arguments, prog_name="surgeon", standalone_mode=False)
    except SystemExit:  # typer's way when nobody reads the help
        return _end_of_pipe()
    except BaseException as error:  # a panic of Rust code is no Exception
        interrupted = isinstance(error, KeyboardInterrupt) or bool(_received)
        if interrupted and not isinstance(error, SurgeonError):
            error = Interrupted("interrupted")
        elif os.environ.get("SURGEON_DEBUG"):
            raise
        console.print_error(_message(error))
        return error.exit_code if isinstance(error, SurgeonError) else 2
    return code if isinstance(code, int) else 0


class _Lossy(io.TextIOWrapper):
    """Standard error: what it does not take, closed or on a full disk, is lost, and no work is."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError:
            _discard(2)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            _discard(2)


def _prepare_streams() -> None:
    """Let nothing that is written to a standard stream end the work, or in a file of the user's.

    Where one is closed, the next file that is opened would take its place.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this
            os.set_inheritable(number, True)  # noqa: FBT003  (it takes no keyword)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # of what its encoding does not have
    error = sys.stderr.buffer if sys.stderr is not None else open(2, "wb", closefd=False)  # noqa: SIM115
    sys.stderr = _Lossy(error, encoding="utf-8", errors="backslashreplace", line_buffering=True)


def _discard(number: int) -> None:
    """Leave a stream to nobody, with what it still holds."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def _end_of_pipe() -> int:
    """Leave standard output to nobody: who read it, such as head, has what they wanted."""
    _discard(sys.stdout.fileno())
    return _PIPE_CLOSED


def _message(error: BaseException) -> str:
    said = f"{error} {error.__cause__}"  # numpy's import has its own words for it
    if any(words in said for words in _OUT_OF_MEMORY):
        error = MemoryError()
    match error:
        case typer.TyperException():
            return f"{error.format_message().replace('Value error, ', '')} (try --help)"
        case OSError(filename=str(name), strerror=str(reason)):
            return f"{name}: {reason}{_what_to_do(error)}"
        case OSError(strerror=str(reason)):
            return f"{reason}{_what_to_do(error)}"
        case MemoryError():
            return "not enough memory for this; close what takes it, or raise its limit (ulimit -v)"
        case SurgeonError():
            return str(error)
        case ModuleNotFoundError(name=str(name)) if not name.startswith("surgeon"):
            return (
                f"this takes the package {name}, which is not installed; install surgeon with its "
                "dependencies (pip check names those that are missing)"
            )
        case _:  # an exit code of 1 would say that a check was not met
            return (
                f"unexpected {type(error).__name__}: {error}; this is a defect of surgeon, and "
                "with SURGEON_DEBUG=1 it shows where"
            )


def _what_to_do(error: OSError) -> str:
    from surgeon.edit.staging import FULL

    return "; make room there, or name a place on another disk" if error.errno in FULL else ""
