"""The README's examples, run as written."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from pretraining import write_run

_README = Path(__file__).parent.parent / "README.md"
_NUMBER = re.compile(r"(?<![\w/])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?!\w)")


def _examples():
    """Yield (command, printed) for each prompt in the README's console blocks."""
    for block in re.findall(r"```console\n(.*?)```", _README.read_text(), re.DOTALL):
        for example in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, printed = example.partition("\n")
            yield command, printed


@pytest.mark.slow  # it exports and evaluates a real model, as a reader would
def test_the_readme_s_commands_print_what_it_says(minilm, tmp_path):
    """Measured numbers may differ in the third digit between machines, and nothing else may."""
    (tmp_path / "all-MiniLM-L6-v2").symlink_to(minilm)
    (tmp_path / "models.txt").write_text("\n".join(f"org/m{n}" for n in range(100_000)))
    write_run(tmp_path / "run")
    seen = 0
    for command, printed in _examples():
        arguments = shlex.split(command.removesuffix(" > /dev/null"))
        if arguments[0] == "surgeon":
            arguments[:1] = [sys.executable, "-m", "surgeon"]
        done = subprocess.run(
            arguments, cwd=tmp_path, capture_output=True, text=True, check=False,
            env={
                "PATH": "/usr/bin:/bin", "COLUMNS": "80", "PYTHONUTF8": "1",
                "SURGEON_CACHE": os.environ["SURGEON_CACHE"],
            },
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        if command.endswith(" > /dev/null"):
            continue
        assert _NUMBER.sub("#", done.stdout).split() == _NUMBER.sub("#", printed).split()
        for got, expected in zip(
            _NUMBER.findall(done.stdout), _NUMBER.findall(printed), strict=True
        ):
            if "e-0" not in expected:  # the parity is noise by nature
                assert float(got) == pytest.approx(float(expected), rel=0.01)
        seen += 1
    assert seen == 7


@pytest.mark.slow
def test_the_readme_s_python_runs(minilm, tmp_path, monkeypatch, capsys):
    (tmp_path / "all-MiniLM-L6-v2").symlink_to(minilm)
    monkeypatch.chdir(tmp_path)
    for code in re.findall(r"```python\n(.*?)```", _README.read_text(), re.DOTALL):
        exec(code, {})
    verdict, gain, ranking = capsys.readouterr().out.splitlines()
    assert verdict.split()[0] in {"degraded", "intact", "inconclusive"}
    assert gain.startswith("tensor(0.")
    assert ranking == "<Ranking of all-MiniLM-L6-v2 by layernorm: outliers none>"


def test_the_readme_names_every_family_and_every_command():
    from surgeon.cli import _COMMANDS
    from surgeon.families import FAMILIES

    text = _README.read_text()
    assert not [family.name for family in FAMILIES if family.name not in text]
    assert not [command for command in _COMMANDS if f"surgeon {command}" not in text]
