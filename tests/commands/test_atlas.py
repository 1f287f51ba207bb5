"""``surgeon atlas`` against a local server that speaks the Hub's routes."""

import json

import pytest
from artifacts import run_python
from forked import in_process
from small_models import write_small_model

from surgeon.cli import run


@pytest.fixture
def hub(serving, tmp_path, monkeypatch):
    made = {f"org/m{n}": write_small_model(tmp_path / f"m{n}", n) for n in range(3)}
    server = serving({**made, "org/gated": made["org/m0"], "org/closed": made["org/m0"]})
    server.gated.update({"org/gated", "org/closed"})
    # Workers are processes, whose start is not what these tests are about.
    monkeypatch.setattr("surgeon.study.engines.choose_engine", lambda *_: in_process)
    return server


@pytest.fixture
def listed(hub, tmp_path):
    path = tmp_path / "models.txt"
    path.write_text("# three of four\norg/m0\norg/m1\norg/gated\norg/m2\n")
    return str(path)


def _atlas(*arguments):
    return run(["atlas", *map(str, arguments), "--workers", "1", "--rate", "100"])


def test_failures_of_some_models_are_counted_and_exit_with_0(hub, listed, tmp_path, capsys):
    out = tmp_path / "atlas.parquet"
    assert _atlas(listed, "-o", out) == 0
    captured = capsys.readouterr()
    assert "--retry tries those again" in captured.err
    shown = " ".join(captured.out.split())
    assert "4 models" in shown
    assert "│ scanned │ 3 │" in shown
    assert "│ failed │ 1 │ │ gated │ 1 │" in shown
    assert f"Atlas: {out}" in shown
    asked = len(hub.requests)
    assert _atlas(listed, "-o", out, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert len(hub.requests) == asked
    assert (document["models"], document["done"], document["failed"]) == (4, 3, 1)
    assert (document["kept"], document["bytes_read"]) == (4, 0)
    assert document["reasons"] == [{"reason": "gated", "models": 1}]
    assert document["output"] == str(out)
    assert document["seconds"] > 0


def test_a_failure_of_every_model_is_told_by_the_exit_code(hub, tmp_path, capsys):
    path = tmp_path / "models.txt"
    path.write_text("org/gated\norg/closed\n")
    assert _atlas(path, "-o", tmp_path / "atlas.parquet") == 1
    assert "every one of 2 models failed" in capsys.readouterr().err


def test_a_dry_run_counts_and_asks_for_nothing(hub, listed, tmp_path, capsys):
    out = tmp_path / "atlas.parquet"
    assert _atlas(listed, "--dry-run") == 0
    assert "4 models, 0 done already: 4 to scan" in capsys.readouterr().out
    assert hub.requests == []
    assert _atlas(listed, "-o", out) == 0
    before = {path: path.read_bytes() for path in tmp_path.glob("atlas*")}
    hub.requests.clear()
    capsys.readouterr()
    assert _atlas(listed, "-o", out, "--dry-run", "--retry", "--json") == 0
    ahead = json.loads(capsys.readouterr().out)
    assert ahead == {"models": 4, "done": 3, "failed": 1, "left": 1, "seconds": 0.0}
    assert hub.requests == []
    assert {path: path.read_bytes() for path in tmp_path.glob("atlas*")} == before


_BUILD = """
import sys
from pathlib import Path
from surgeon import build_atlas
from surgeon.study.engines import do_job
def here(queue, work):
    while taken := queue.take():
        yield do_job(taken[0], work)
built = build_atlas(["org/m0", "org/m3"], Path(sys.argv[1]), engine=here)
heavy = ("torch", "transformers", "onnx", "onnxruntime")
print(built.done, *[name for name in heavy if name in sys.modules])
"""


def test_an_atlas_imports_no_framework(hub, tmp_path):
    out = tmp_path / "atlas.parquet"
    assert run_python("-c", _BUILD, out).stdout.split() == ["1"]


@pytest.mark.parametrize(
    ("text", "options", "complaint"),
    [
        ("org/a\n", [], "-o FILE"),
        ("org/a\nno id\n", ["-o", "a.parquet"], "models.txt:2: 'no id' is not a Hub id"),
        ("# none\n", ["-o", "a.parquet"], "names no model"),
        ("org/a\n", ["-o", "a.parquet", "--sigma", "0"], "--sigma 0"),
        ("org/a\n", ["-o", "a.parquet", "--max-mb", "nan"], "--max-mb: give a positive number"),
        ("org/a\n", ["--dry-run", "--workers", "0"], "--workers 0"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_code_2(tmp_path, refused, text, options, complaint):
    path = tmp_path / "models.txt"
    path.write_text(text)
    refused("atlas", path, *options, says=complaint)
