import json
import os
import signal
import subprocess
import sys
import time

import pytest

from surgeon.cli import run

_GRID = """\
models: [{model}]
selections: [{{each: 0-30}}, {{dims: [99, 157]}}]
tasks: [{{data: d.txt, controls: 4}}]
"""


@pytest.fixture
def grid(minilm, tmp_path):
    (tmp_path / "d.txt").write_text("One text.\nAnother text.\n")
    path = tmp_path / "grid.yaml"
    path.write_text(_GRID.format(model=minilm))
    return path


def test_a_dry_run_shows_the_grid_and_its_cost_and_runs_nothing(grid, tmp_path, done, json_of):
    before = sorted(tmp_path.iterdir())
    shown = done("sweep", grid, "--dry-run").out
    for part in ("32 cells of 1 model", "11 more", "dims 99,157: zero"):
        assert part in shown
    document = json_of("sweep", grid, "--dry-run")
    assert len(document["cells"]) == document["cost"]["cells"] == 32
    assert document["cost"]["variants"] == 32 + 1 + 2 * 4  # singles and pairs have their controls
    assert sorted(tmp_path.iterdir()) == before


def test_cells_that_failed_are_told_by_the_exit_code(tmp_path, capsys):
    path = tmp_path / "grid.yaml"
    path.write_text("models: [./nowhere]\nselections: [dims: [3]]\ntasks: [task: mlm]\n")
    out = tmp_path / "out"
    assert run(["sweep", str(path), "-o", str(out), "--json"]) == 1
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert (document["cells"], document["done"], document["failed"]) == (1, 0, 1)
    assert "1 of 1 cells failed" in captured.err
    (row,) = map(json.loads, (out / "rows.jsonl").read_text().splitlines())
    assert "nowhere" in row["error"]
    assert (row["selection"], row["dims"], row["task"]) == ("dims", [3], "mlm")
    assert [failed["cells"] for failed in document["reasons"]] == [1]
    assert run(["sweep", str(path), "-o", str(out)]) == 1
    assert "1 failed: no such" in capsys.readouterr().out


def _hear_sigint():
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_a_sweep_that_is_interrupted_says_how_to_go_on(tiny, tmp_path):
    grid, out = tmp_path / "grid.yaml", tmp_path / "out"
    grid.write_text(f"models: [{tiny('bert')}]\nselections: [{{each: 0-9}}]\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "surgeon", "sweep", str(grid), "-o", str(out)],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background has them ignore it.
        preexec_fn=_hear_sigint,  # noqa: PLW1509  (it takes no lock)
    )
    deadline = time.monotonic() + 60
    while not (out / "models").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: workers hear it too
    shown, told = process.communicate(timeout=60)
    assert (process.returncode, shown) == (130, "")
    expected = f"interrupted; its rows so far are in {out}, and the same command goes on from there"
    assert told.startswith(f"surgeon: {expected}\n")
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ([], "-o DIR"),
        (["-o", "out", "--workers", "0"], "--workers 0"),
        (["--dry-run", "--workers", "0"], "--workers 0"),
        (["-o", "out", "--engine", "ray", "--cpus", "-1"], "--cpus -1: give a number of 0 or more"),
        (["-o", "out", "--engine", "ray", "--gpus", "nan"], "--gpus nan: give a number"),
        (["-o", "out", "--engine", "ray", "--gpus", "1.5"], "--gpus 1.5: above 1, Ray takes whole"),
        (["-o", "out", "--address", "auto"], "--address: is for --engine ray"),
        (["-o", "out", "--cpus", "2"], "--cpus: is for --engine ray"),
        (["-o", "out", "--gpus", "1"], "--gpus: is for --engine ray"),
        (["-o", "out", "--provider", "cuda"], "--provider cuda: this onnxruntime has CPU"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_code_2(
    grid, tmp_path, refused, monkeypatch, options, complaint
):
    import onnxruntime

    cpu_alone = ["CPUExecutionProvider"]  # as where onnxruntime-gpu is not installed
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: cpu_alone)
    monkeypatch.chdir(tmp_path)
    refused("sweep", grid, *options, says=complaint)
    assert not (tmp_path / "out").exists()


def test_every_error_in_the_grid_is_told_in_a_line_with_its_place(tmp_path, capsys):
    path = tmp_path / "grid.yaml"
    path.write_text("models: [m]\nselection: [dims: [3]]\ntasks: [mlm]\n")
    for options in (["--dry-run"], ["-o", str(tmp_path / "out")]):
        assert run(["sweep", str(path), *options]) == 2
        lines = capsys.readouterr().err.splitlines()
        places = [line.removeprefix(f"surgeon: {path}:").split(": ")[0] for line in lines]
        assert places == ["1:1", "2:1", "3:9"]


def test_a_dry_run_doubts_models_that_are_not_here(tmp_path, done):
    path = tmp_path / "grid.yaml"
    path.write_text("models: [./gone/model, nosuchmodel]\nselections: [dims: [3]]\n")
    told = " ".join(done("sweep", path, "--dry-run").err.split())
    assert "./gone/model: no such directory or file; its cells would fail" in told
    assert "nosuchmodel is not here, so it is taken for a model on the Hub" in told


def test_a_dry_run_counts_the_rows_that_are_there_and_estimates_by_their_time(
    grid, tmp_path, done, json_of
):
    document = json_of("sweep", grid, "--dry-run")
    assert document["outlook"] == {"done": 0, "failed": 0, "left": 32, "seconds": None}
    keys = [cell["cell"] for cell in document["cells"]]
    rows = [{"cell": key, "status": "done", "seconds": 2.0} for key in keys[:10]]
    rows += [{"cell": key, "status": "failed", "seconds": 9.0} for key in keys[10:12]]
    out = tmp_path / "out"
    out.mkdir()
    (out / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"ce')
    before = (out / "rows.jsonl").read_bytes()
    ahead = json_of("sweep", grid, "--dry-run", "-o", out)["outlook"]
    assert ahead == {"done": 10, "failed": 2, "left": 20, "seconds": 40.0}
    shown = done("sweep", grid, "--dry-run", "-o", out, "--retry", "--workers", "2").out
    shown = " ".join(shown.split())
    assert "10 done already, 2 failed: 22 to run, about 22 s by the time that these took" in shown
    assert (out / "rows.jsonl").read_bytes() == before
    assert [path.name for path in out.iterdir()] == ["rows.jsonl"]


def test_a_large_grid_is_told_to_take_its_time(tmp_path, done, monkeypatch):
    monkeypatch.setattr("surgeon.commands.sweep._MANY", 10)
    path = tmp_path / "grid.yaml"
    path.write_text("models: [m]\nselections: [each: 0-9]\nseeds: [0, 1]\n")
    assert "20 cells: to lay them out takes about" in done("sweep", path, "--dry-run").err
