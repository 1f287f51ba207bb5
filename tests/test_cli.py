import inspect
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import typing

import pytest
import typer
from artifacts import run_python
from training_runs import write_pretraining

import surgeon
from surgeon.cli import _COMMANDS, _GROUPS, EXAMPLES, app, run
from surgeon.console.printing import as_options, print_table, print_text
from surgeon.progress import silent

_HEAVY = (
    "torch", "transformers", "onnx", "onnxruntime", "scipy", "onnx_ir", "matplotlib", "plotly",
    "surgeon.ranking.torch_runner",  # and the methods that run a model
)  # fmt: skip

_RUN_ALL = """
import sys
from surgeon import cli
cli._prepare_streams()  # as its main does, once
words = sys.argv[1:]
while words:
    end = words.index(";")
    assert cli.run(words[:end]) == 0
    sys.stdout.flush()
    words = words[end + 1 :]
"""


def _run_all(*commands, code=_RUN_ALL, **environment):
    """Run command lines one after the other in a fresh interpreter; return what they print."""
    given = [word for command in commands for word in (*command, ";")]
    how = {"env": {**os.environ, **environment}, "errors": "replace"}
    done = run_python("-c", code, *given, check=False, **how)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _imported(*commands):
    """Return which heavy modules command lines import."""
    code = f"{_RUN_ALL}print('heavy:', *[m for m in {_HEAVY!r} if m in sys.modules])"
    last = _run_all(*commands, code=code).splitlines()[-1]
    return last.removeprefix("heavy:").split()


def test_help_scan_trace_and_patch_without_onnx_import_no_framework(minilm, tmp_path):
    models, out = tmp_path / "models.txt", tmp_path / "out"
    models.write_text("org/model\n")
    assert not _imported(
        ["--help"],
        ["patch", "--help"],
        ["scan", minilm],
        ["atlas", models, "--dry-run"],
        ["trace", write_pretraining(tmp_path / "run")],
        ["patch", minilm, "--dims", "99", "--no-onnx", "-o", out],
        ["restore", out, "-o", tmp_path / "back"],
    )


def test_eval_imports_neither_torch_nor_transformers(minilm_patched, tmp_path):
    data = tmp_path / "d.txt"
    data.write_text("One line.\nAnother line.\n")
    artifact = shutil.copytree(minilm_patched, tmp_path / "artifact")
    imported = _imported(["eval", artifact, "--data", data, "--controls", "1"])
    assert set(imported) == {"onnx", "onnxruntime", "scipy"}


def test_the_version_is_the_package_s(done):
    for told in (done("--version").out, run_python("-m", "surgeon", "--version").stdout):
        assert told == f"surgeon {surgeon.__version__}\n"


def test_help_lists_every_command_with_a_line_of_its_own(done):
    bare = done().out
    assert done("--help").out.rstrip() == bare.rstrip()
    for command in ("scan", "patch", "eval", "restore", "demo"):
        (line,) = [line for line in bare.splitlines() if line.startswith(f"  {command} ")]
        assert "..." not in line


def test_the_shell_can_complete_commands_and_options():
    def complete(words, index):
        asked = {"COMP_WORDS": words, "COMP_CWORD": str(index)}
        environment = {**os.environ, "_SURGEON_COMPLETE": "complete_bash", **asked}
        return run_python("-m", "surgeon", env=environment, check=False).stdout

    assert complete("surgeon s", 1).split() == ["scan", "sweep"]
    assert "--remove-outliers" in complete("surgeon patch --rem", 2)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("nonsense", "No such command 'nonsense'. (try --help)"),
        ("scna", "Did you mean 'scan'?"),
        ("scan", "Missing argument"),
        ("recipes --json list", "--json: give it after the command"),
        ("scan model --metod x", "--method"),
        ("patch model --mode zeros", "--mode': 'zeros' is not one of 'zero', 'scale', 'mean'"),
    ],
)
def test_a_wrong_command_is_one_line_and_exit_code_2(arguments, says, refused):
    refused(*arguments.split(), says=says)


def test_the_help_of_a_command_groups_its_options_where_they_are_many(done):
    commands = typer.main.get_command(app)
    there = {p.name for n in _COMMANDS for p in commands.get_command(None, n).params}
    assert {option for options in _GROUPS.values() for option in options} <= there
    headings = re.findall(r"^\w+:$", done("patch", "--help").out, re.MULTILINE)
    assert headings[:5] == ["Arguments:", "Model:", "Dimensions:", "Edit:", "Texts:"]
    assert "Output:" not in done("verify", "--help").out


@pytest.mark.parametrize("message", ["", "interrupted; the same call with --resume goes on"])
def test_an_interruption_is_one_line_and_exit_code_130(monkeypatch, capsys, message):
    def stop(*_arguments, **_options):
        raise KeyboardInterrupt(message) if message else KeyboardInterrupt

    monkeypatch.setattr(surgeon, "open_checkpoint", stop, raising=False)
    assert run(["diff", "a", "b"]) == 130
    assert capsys.readouterr().err == f"surgeon: {message or 'interrupted'}\n"


class PanicException(BaseException):
    """Not an error that anything would catch."""


@pytest.mark.parametrize("error", [KeyError("weights"), PanicException("index out of bounds")])
def test_a_defect_or_a_panic_is_one_line_and_no_verdict(monkeypatch, refused, error):
    def fail(*_arguments, **_options):
        raise error

    monkeypatch.setattr(surgeon, "open_checkpoint", fail, raising=False)
    line = refused("diff", "a", "b", says=f"surgeon: unexpected {type(error).__name__}: {error}; ")
    assert "SURGEON_DEBUG=1" in line


def test_an_empty_argument_is_not_the_working_directory(refused):
    refused("verify", "", says="an argument is empty")


def test_a_package_that_is_not_installed_is_named_in_a_line(monkeypatch, refused):
    def fail(*_arguments, **_options):
        raise ModuleNotFoundError(name="torch")

    monkeypatch.setattr(surgeon, "open_checkpoint", fail, raising=False)
    refused("diff", "a", "b", says="this takes the package torch, which is not installed")


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_who_stops_reading_is_told_nothing_and_no_verdict(minilm, options):
    scan = [sys.executable, "-m", "surgeon", "scan", str(minilm), "--top", "384", *options]
    with subprocess.Popen(scan, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "cp1252"},
        {"PYTHONIOENCODING": "latin-1"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    ],
)
def test_output_in_any_encoding_has_a_stand_in_for_what_that_lacks(tiny, tmp_path, environment):
    source, out = shutil.copytree(tiny("bert"), tmp_path / "größe σ"), tmp_path / "out σ"
    commands = {
        "3 layers, 16 dimensions": ["scan", source],
        "Artifact: ": ["patch", source, "--dims", "1", "--no-onnx", "-o", out],
        '"passed": true': ["verify", out, "--json"],
        "--random": ["patch", "--help"],
    }
    printed = _run_all(*commands.values(), **environment)
    assert all(shown in printed for shown in commands)
    assert json.loads((out / "surgeon" / "record.json").read_bytes())["dims"] == [1]


def test_debug_shows_where_an_error_came_from(monkeypatch):
    monkeypatch.setenv("SURGEON_DEBUG", "1")
    with pytest.raises(surgeon.SurgeonError):
        run(["scan", "/nowhere"])


def test_every_name_of_the_api_is_there_and_documented():
    assert set(dir(surgeon)) >= {*surgeon.__all__, "removed", "rank"}
    for name in surgeon.__all__:
        assert getattr(surgeon, name).__doc__ or name == "__version__"
    with pytest.raises(AttributeError, match="nonsense"):
        surgeon.nonsense  # noqa: B018


def test_an_argument_of_another_kind_is_an_error_that_names_it():
    for function in filter(inspect.isfunction, (getattr(surgeon, n) for n in surgeon.__all__)):
        assert function.__module__ == "surgeon"  # which has what refuses, for pickle too
        kinds = {n: k for n, k in typing.get_type_hints(function).items() if n != "return"}
        typed = {n: kind for n, kind in kinds.items() if kind is not typing.Any}
        fitting = {
            n: typed[n].__new__(typed[n]) if isinstance(typed.get(n), type) else "x"
            for n, parameter in inspect.signature(function).parameters.items()
            if parameter.default is parameter.empty
        }
        for name in typed:
            for wrong in (object(), [object()], b"x"):
                with pytest.raises(surgeon.SurgeonError, match=rf"^`{name}`: give .*; found \w+"):
                    function(**{**fitting, name: wrong})


def test_importing_the_package_imports_nothing_else():
    code = "import sys, surgeon; print([m for m in sys.modules if m.startswith('surgeon.')])"
    assert run_python("-c", code).stdout.strip() == "[]"


def test_onnxruntime_reports_to_nobody_and_keeps_no_id_in_the_home(embedder_patched, tmp_path):
    code = f"import surgeon; surgeon.evaluate({str(embedder_patched)!r}, texts=['One.', 'Two.'])"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ORT_")}
    run_python("-c", code, env={**inherited, "HOME": str(tmp_path)})
    assert list(tmp_path.iterdir()) == []


def test_long_work_says_in_a_log_how_far_it_is_and_short_work_nothing(capsys):
    now, step = 0.0, "removing dimensions"
    reports = (
        *((10.0 * number, "copying", number, 7) for number in range(1, 8)),
        (110.0, "flushing to disk", 0, 0),
        *((120.0, step, 0, 900), (130.0, step, 1, 900), (150.0, step, 2, 900)),
    )
    with surgeon.shown_progress(clock=lambda: now) as progress:
        for now, *report in reports:  # noqa: B007  (the clock tells it)
            progress(*report)
    lines = (
        "copying: 3 of 7, about 40 s left",
        "copying: 6 of 7, about 10 s left",
        "flushing to disk",
        "removing dimensions: 2 of 900, about 5 h left",
    )
    assert capsys.readouterr() == ("", "".join(f"{line}\n" for line in lines))
    with surgeon.shown_progress(clock=lambda: 0.0) as progress:
        progress("cells, 3 failed", 120, 480)
    assert capsys.readouterr() == ("", "")


# What reads or lists a little, and what makes a value of others.
_QUICK = {
    "built_in_sample", "load_recipe", "make_onnx_plan", "open_live", "open_onnx", "plot_agreement",
    "plot_ranking", "plot_trace", "rank_by_layernorm", "ranking_sample", "read_evaluation",
    "read_evaluations", "read_record", "read_texts", "read_zscores", "removed", "save_evaluation",
    "shown_progress",
}  # fmt: skip


def test_every_function_that_may_take_long_says_how_far_it_is():
    functions = {n for n in surgeon.__all__ if inspect.isfunction(getattr(surgeon, n))}
    assert functions > _QUICK
    for name in functions - _QUICK:
        progress = inspect.signature(getattr(surgeon, name)).parameters["progress"]
        assert progress.kind is progress.KEYWORD_ONLY, name
        assert progress.default is silent, name


# Who starts the tests may have had SIGINT ignored, as shells do for jobs in the background.
_INTERRUPTED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == interrupted:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
interrupted = sys.argv.pop(1)
import surgeon.__main__
surgeon.__main__.main()
"""


@pytest.mark.parametrize(
    "module", ["typer", "surgeon.console", "surgeon.commands.patch", "numpy._core", "safetensors"]
)
def test_ctrl_c_during_an_import_is_one_line_and_130(minilm, tmp_path, module):
    (tmp_path / "run.py").write_text(_INTERRUPTED)
    patch = ["patch", minilm, "--dims", "3", "--no-onnx", "-o", tmp_path / "out"]
    done = run_python(tmp_path / "run.py", module, *patch, check=False)
    assert (done.returncode, done.stderr) == (130, "surgeon: interrupted\n")
    assert not (tmp_path / "out").exists()


_TWICE = """
import os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from surgeon import cli
def interrupt(arguments, **_):
    try:
        os.kill(os.getpid(), signal.SIGINT)
    finally:
        os.kill(os.getpid(), signal.SIGINT)
        print("cleaned up")
cli.app = interrupt
show = cli._message
def shown(error):
    os.kill(os.getpid(), signal.SIGINT)
    return show(error)
cli._message = shown
cli.main()
"""


def test_a_second_ctrl_c_does_not_disturb_the_clean_up_of_the_first():
    done = run_python("-c", _TWICE, check=False)
    expected = (130, "cleaned up\n", "surgeon: interrupted\n")
    assert (done.returncode, done.stdout, done.stderr) == expected


@pytest.mark.parametrize(
    ("streams", "model", "code"),
    [
        (">/dev/full", "MODEL", 2),
        (">/dev/full", "--help", 2),
        (">&-", "MODEL", 0),
        ("2>/dev/full", "MODEL", 0),
        ("2>/dev/full", "nowhere", 2),
        ("2>&-", "nowhere", 2),
        ("<&- >&- 2>&-", "MODEL", 0),
    ],
)
def test_a_stream_that_is_closed_or_full_changes_no_code(tiny, streams, model, code):
    model = model.replace("MODEL", str(tiny("bert")))
    command = ["sh", "-c", f"{sys.executable} -m surgeon scan {model} {streams}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert done.stderr.count("\n") == (streams == ">/dev/full")
    assert "Traceback" not in done.stderr


def test_no_file_takes_the_place_of_a_closed_stream(tiny, tmp_path):
    command = f"{sys.executable} -m surgeon patch {tiny('bert')} --dims 3 --no-onnx -o {tmp_path}/o"
    done = subprocess.run(["sh", "-c", f"{command} <&- >&- 2>&-"], check=False)
    assert done.returncode == 0
    assert run(["verify", str(tmp_path / "o")]) == 0


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("`mask_rate`: give a number below 1", "--mask-rate: give a number below 1"),
        ("`params.0`: there is gain", "--params: there is gain"),
        ("use `onnx=False` or `force=True`", "use --no-onnx or --force"),
        ("`output` a/b: exists; `texts` and `max_bytes`", "-o a/b: exists; --data and --max-mb"),
        ("nothing in ``these`` or `{a b}`", "nothing in ``these`` or `{a b}`"),
    ],
)
def test_what_the_library_calls_a_parameter_is_an_option_on_the_command_line(message, shown):
    assert as_options(message) == shown


def test_a_terminal_wraps_between_words_and_a_file_gets_whole_lines(monkeypatch):
    sentence = f"Eight words are written to one line by {'folder/' * 12}out and no more."
    lines = {}
    for is_terminal in (True, False):
        stream = io.StringIO()
        monkeypatch.setattr(stream, "isatty", lambda is_terminal=is_terminal: is_terminal)
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setenv("COLUMNS", "30")
        print_text(sentence)
        lines[is_terminal] = stream.getvalue().splitlines()
    assert lines[False] == [sentence]
    assert " ".join(lines[True]) == sentence
    assert lines[True][0] == "Eight words are written to one"
    assert [len(line) <= 30 for line in lines[True]].count(False) == 1


def test_a_terminal_that_gives_no_width_is_written_to(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "0")
    print_table(["head"], [("cell",)])
    assert "cell" in capsys.readouterr().out


@pytest.mark.parametrize("width", [80, 52])
def test_a_table_breaks_no_word_that_has_room(width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    tensor, values = "encoder.layer.0.output.weight", "-0.09588, -0.06571, -0.1025, -0.00012"
    print_table(["tensor", ">dims", "layers that flag it"], [(tensor, "99, 157", values)] * 2)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    words = re.findall(r"[^\s┃│┏━┳┓┡╇┩└─┴┘]+", "\n".join(lines))
    heads = ["tensor", "dims", "layers", "that", "flag", "it"]
    assert sorted(words) == sorted(heads + 2 * [tensor, "99,", "157", *values.split()])


def test_the_examples_in_the_help_are_calls_that_the_command_takes():
    commands = typer.main.get_command(app)
    for name, examples in EXAMPLES.items():
        for arguments in examples:
            commands.get_command(None, name).make_context(name, shlex.split(arguments))
