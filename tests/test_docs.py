"""README and docs: every block run as written, in an empty folder, in the order of its page."""

import importlib.util
import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import transformers
import typer
import yaml
from hub_server import connect, serve
from task_models import word_tokenizer
from tiny import make_unequal
from training_runs import write_pretraining

import surgeon
from surgeon.cli import _COMMANDS, EXAMPLES, app, run
from surgeon.families import FAMILIES
from surgeon.tasks.registry import TASKS

_ROOT = Path(__file__).parent.parent
_PAGES = {
    path.relative_to(_ROOT).as_posix(): path.read_text("utf-8")
    for path in [_ROOT / "README.md", *sorted((_ROOT / "docs").glob("*.md"))]
}
_BLOCK = re.compile(r'^```(\w+)(?: title="([^"\n]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
_RUN = [name for name, text in _PAGES.items() if "```console" in text or "```python" in text]
_NUMBER = re.compile(r"(?<![\w/])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?!\w)")


@pytest.fixture(scope="module")
def hub(minilm, tmp_path_factory):
    """A Hub with the models that the pages name: MiniLM as it is, and a small BERT-base."""
    root = tmp_path_factory.mktemp("hub")
    sizes = {"hidden_size": 384, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.BertConfig(
        **sizes, intermediate_size=8, vocab_size=800, max_position_embeddings=256
    )
    bert = make_unequal(transformers.BertForMaskedLM, config, seed=1)
    bert.save_pretrained(root / "bert")
    word_tokenizer().save_pretrained(root / "bert")
    served = {
        "google-bert/bert-base-uncased": root / "bert",
        "sentence-transformers/all-MiniLM-L6-v2": minilm,
    }
    with serve(served) as server:
        server.renamed["bert-base-uncased"] = "google-bert/bert-base-uncased"
        yield server


@pytest.fixture
def folder(hub, minilm, tmp_path, tmp_path_factory, monkeypatch):
    """An empty folder to work in, with the Hub in reach."""
    connect(monkeypatch, hub.url, tmp_path_factory.getbasetemp() / "docs-cache")
    for name, url in {  # as of import, which is what transformers' own calls go by
        "constants.ENDPOINT": hub.url,
        "constants.HUGGINGFACE_CO_URL_TEMPLATE": hub.url
        + "/{repo_id}/resolve/{revision}/{filename}",
        "hf_api.api.endpoint": hub.url,
    }.items():
        monkeypatch.setattr(f"huggingface_hub.{name}", url)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _call(command, capsys):
    """Run a line of a console block; return its exit code and what it printed."""
    ours, printed = command.startswith("surgeon "), ""
    if ours:  # in this process, which has the Hub and has loaded the libraries
        call, _, command = command.replace(" > ", " | cat > ").partition(" | ")
        code = run(shlex.split(call)[1:])
        captured = capsys.readouterr()
        printed = captured.out + (captured.err if code == 2 else "")
    if command:
        done = subprocess.run(
            ["bash", "-c", command], input=printed, capture_output=True, text=True, check=False
        )
        printed = done.stdout + done.stderr
    return code if ours else done.returncode, printed


def _check_printed(printed, expected):
    """Measured numbers may differ in the third digit between machines, and nothing else may."""
    assert _NUMBER.sub("#", printed).split() == _NUMBER.sub("#", expected).split()
    for got, said in zip(_NUMBER.findall(printed), _NUMBER.findall(expected), strict=True):
        if "e-0" not in said:  # the parity is noise by nature
            assert float(got) == pytest.approx(float(said), rel=0.01, abs=2e-4)


def _run_console(block, capsys):
    code, printed = 0, ""
    for example in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, expected = example.partition("\n")
        if command == "echo $?":
            assert code == int(expected)
            code = 0
            continue
        assert code == 0, printed
        code, printed = _call(command, capsys)
        if expected.strip():
            _check_printed(printed, expected)
    assert code == 0, printed


@pytest.mark.slow  # they export and evaluate a real model, as a reader would
@pytest.mark.xdist_group("ray")  # one of them starts a cluster, and all share what is downloaded
@pytest.mark.parametrize("page", _RUN)
def test_a_page_does_what_it_says(page, folder, capsys):
    if "surgeon trace run" in _PAGES[page]:
        write_pretraining(folder / "run")
    names = {}
    for language, title, text in _BLOCK.findall(_PAGES[page]):
        if title:
            (folder / title).write_text(text)
        elif language == "console":
            _run_console(text, capsys)
        elif language == "python":
            exec(compile(text, page, "exec"), names)
        elif language == "text":  # what the Python above printed
            _check_printed(capsys.readouterr().out, text)


@pytest.mark.slow
def test_the_notebook_of_the_tutorial_runs(folder):
    notebook = json.loads((_ROOT / "docs" / "tutorial.ipynb").read_text("utf-8"))
    names = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), "tutorial.ipynb", "exec"), names)
    assert names["evaluation"].verdict == "degraded"


def test_a_command_that_a_sentence_names_exists_with_its_options():
    group = typer.main.get_command(app)
    for page, text in _PAGES.items():
        for line in re.findall(r"`surgeon ([^`]+)`|^\$ surgeon (.+)$", text, re.MULTILINE):
            name, *rest = " ".join(line).partition(" | ")[0].split()
            command = group.get_command(None, name)
            if not name.startswith("-") and name != "COMMAND":
                assert command is not None, (page, name)
                known = {option for one in command.params for option in one.opts}
                known |= {option for one in command.params for option in one.secondary_opts}
                given = {word for word in rest if re.fullmatch(r"--?[a-z][a-z-]*", word)}
                assert given <= known | {"--help"}, (page, line)


def test_every_family_task_command_and_public_name_is_in_the_docs():
    models = _PAGES["docs/models.md"]
    assert not [family.name for family in FAMILIES if family.name not in models]
    assert not [task for task in TASKS if f"`{task}`" not in _PAGES["docs/tasks.md"]]
    whole = "\n".join(_PAGES.values())
    assert not [command for command in _COMMANDS if f"surgeon {command}" not in whole]
    shown = set(re.findall(r"^::: surgeon\.(\w+)$", _PAGES["docs/api.md"], re.MULTILINE))
    assert shown == set(surgeon.__all__) - {"__version__"}


def test_modules_that_the_pages_name_exist():
    for page, text in _PAGES.items():
        for line in re.findall(r"^\| `(.+?)` \|", text, re.MULTILINE):
            folder = ""
            for part in line.replace("`", "").split(", "):
                if part.endswith((".py", "/")):
                    folder = part.rpartition("/")[0] or folder
                    found = _ROOT / "surgeon" / folder / part.rpartition("/")[2]
                    assert found.exists(), (page, line)


def test_the_reference_has_every_command_option_and_example():
    spec = importlib.util.spec_from_file_location("pages", _ROOT / "docs" / "generated_pages.py")
    pages = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pages)
    page, group = pages.command_reference(), typer.main.get_command(app)
    for name in _COMMANDS:
        section = page.partition(f"## surgeon {name}\n")[2].partition("\n## ")[0]
        for parameter in group.get_command(None, name).params:
            shown = [parameter.opts[-1], parameter.metavar]  # an argument is shown by the second
            assert any(word and word in section for word in shown), (name, parameter)
        for example in EXAMPLES.get(name, ()):
            assert f"    surgeon {name} {example}\n" in section


def test_the_citation_names_this_version():
    citation = yaml.safe_load((_ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == surgeon.__version__
