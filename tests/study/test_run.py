import errno
import json
import multiprocessing
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
from artifacts import patch
from forked import in_process

import surgeon
from surgeon import evaluate
from surgeon.console import show_sweep
from surgeon.edit import plan
from surgeon.edit.recipe import recipe_from_json
from surgeon.errors import OutputError, SelectionError
from surgeon.progress import duration
from surgeon.study.engines import choose_engine, do_job
from surgeon.study.grid import check_grid, make_cells
from surgeon.study.measure import Measurer
from surgeon.study.sweep import preview_sweep, run_sweep
from surgeon.study.sweep_folder import open_folder, read_rows

_SMALL = "selections: [{each: 0-2}, {dims: [3, 9]}, {random: 2}]\nseeds: [0, 1]\n"


def _rows(folder):
    """Return the rows of a sweep without the time that each took."""
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    for row in rows:
        assert row.pop("seconds") >= 0
    return rows


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A folder of exported models that the sweeps of these tests share."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture
def sweep(grid_file, exported, tmp_path):
    """Run a grid in this process, in the folder ``out``."""

    def run(text, *models, out="out", **options):
        options = {"models": exported, "engine": in_process, **options}
        return run_sweep(check_grid(grid_file(text, models)).valid(), tmp_path / out, **options)

    return run


def test_a_row_says_what_evaluate_says_of_the_artifact_of_its_recipe(sweep, small_model, tmp_path):
    sweep("selections: [{dims: [3, 9]}]\noperations: [{mode: scale, factor: 3}]\nseeds: [2]\n")
    (row,) = _rows(tmp_path / "out")
    recipe = recipe_from_json(row["record"]["recipe"], "row")
    patch(small_model, tmp_path / "artifact", onnx=True, **dict(recipe))
    # The row's recipe says all of it, that no text is left out too.
    assert recipe.evaluation.until_certain is False
    result = evaluate(tmp_path / "artifact")
    assert (row["task"], row["dims"], row["examples"]) == ("mlm", [3, 9], 5)
    assert row["baseline"] == pytest.approx(result.baseline.value, rel=1e-6)
    assert row["patched"] == pytest.approx(result.patched.value, rel=1e-6)
    assert row["delta"] != 0
    assert row["warnings"] == list(result.warnings)
    assert any(warning.startswith("with 3 controls") for warning in row["warnings"])
    assert (row["ci95_low"], row["ci95_high"]) == pytest.approx(result.ci95, rel=1e-4)
    assert len(row["controls"]) == 3
    assert all(not {3, 9} & set(control["dims"]) for control in row["controls"])


def test_a_ranking_runs_once_for_all_cells_that_ask_for_it(sweep, tmp_path, monkeypatch):
    """By ablation it takes longer than all else."""
    ran = []
    monkeypatch.setattr(plan, "rank_dimensions", lambda *a, **k: ran.append(a) or rank(*a, **k))
    rank = surgeon.rank_dimensions
    by_weights = "method: layernorm, remove_outliers: 2"
    sweep(
        f"selections: [{{{by_weights}, relax: true}}, {{{by_weights}}}]\n"
        "operations: [{}, {mode: mean}]\nlayers: [all, 1]\nseeds: [0, 1]\n"
    )
    assert len(ran) == 2
    rows = _rows(tmp_path / "out")
    assert [row["status"] for row in rows] == ["done"] * 8 + ["failed"] * 8
    assert all("of small's dimensions meet" in row["error"] for row in rows[8:])
    for row in rows[3:8:4]:
        made = surgeon.make_plan(ran[0][0], recipe_from_json(row["record"]["recipe"], "row"))
        assert (list(made.dims), made.parameters_changed) == (
            row["dims"], row["parameters_changed"]
        )  # fmt: skip


def test_a_control_of_a_sweep_is_the_removal_that_it_says(sweep, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    operations = "operations: [{}, {mode: scale, factor: 0.5}]"
    show_sweep(sweep(f"selections: [{{each: 0-15}}]\n{operations}\n"), json=False)
    shown = capsys.readouterr().out
    assert 0 < shown.count("scale gain and bias by 0.5, all layers") < 20
    assert shown.count("gain and bias") == 20
    assert "and 12 more, which changed it less" in shown
    assert f"Next: surgeon report {tmp_path / 'out'} -o report.html" in shown
    rows = {tuple(row["dims"]): row for row in _rows(tmp_path / "out")}
    controls = [control for row in rows.values() for control in row["controls"]]
    assert len(controls) == 16 * 3
    for control in controls:
        assert control["value"] == rows[tuple(control["dims"])]["patched"]


def test_changes_of_several_seeds_are_shown_with_their_seeds(sweep, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    for seeds, heads in (("[5]", []), ("[5, 6]", ["seed"])):
        show_sweep(sweep(f"selections: [dims: [3]]\nseeds: {seeds}\n"), json=False)
        shown, notes = capsys.readouterr()
        assert "1 of 1 cell: with 3 controls" in notes or seeds != "[5]"
        assert shown.startswith(("1 cell: 1 done", "2 cells: 2 done")[len(heads)])
        head = next(line for line in shown.splitlines() if "verdict" in line)
        assert [name for name in head.split() if name == "seed"] == heads


def test_models_of_one_name_are_shown_apart(sweep, small_model, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    other = tmp_path / "other" / small_model.name
    other.parent.mkdir()
    other.symlink_to(small_model)
    show_sweep(sweep("selections: [dims: [3]]\n", small_model, other), json=False)
    shown = capsys.readouterr().out
    assert "other/small: mlm on lines.txt" in shown
    assert f"{small_model.parent.name}/small: mlm on lines.txt" in shown


@pytest.mark.slow
def test_a_sweep_that_is_killed_again_and_again_ends_with_the_same_rows(
    sweep, grid_file, exported, tmp_path
):
    drawn = ", ".join(f"{{random: {count}}}" for count in (2, 3, 4, 5))
    text = f"selections: [{{each: 0-15}}, {drawn}]\nseeds: {list(range(4))}\n"
    whole = sweep(text, out="whole")
    assert (whole.total, whole.done, whole.failed) == (80, 80, 0)
    path, out, chance, seen = grid_file(text), tmp_path / "killed", random.Random(0), 0
    command = [sys.executable, "-m", "surgeon", "sweep", str(path), "-o", str(out)]
    out.mkdir()
    shutil.copytree(exported, out / "models")
    (out / "rows.jsonl").touch()
    for _ in range(2):
        process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
        deadline, target = time.monotonic() + 120, seen + chance.randint(1, 30)
        while _lines(out) < target and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        seen = _lines(out)
    assert 2 <= seen < 80
    with (out / "rows.jsonl").open("ab") as file:
        file.write(b'{"cell": "cut o')  # as a kill in the middle of a write leaves it
    _wait_until_unlocked(out)
    done = run_sweep(check_grid(path).valid(), out, engine=in_process)
    assert (done.done, done.kept) == (80, seen)
    assert _rows(out) == _rows(tmp_path / "whole")


def test_a_worker_ends_when_the_process_that_asked_is_killed():
    code = """
import forked
from surgeon.study.engines import run_local
from surgeon.study.engines import JobQueue
from surgeon.study.targets import Target
list(run_local(JobQueue([Target("any")]), forked.sleep, 1))
"""
    path = os.pathsep.join(sys.path)
    command, variables = [sys.executable, "-c", code], {**os.environ, "PYTHONPATH": path}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=variables) as process:
        worker = int(process.stdout.readline())
        process.kill()
        process.wait()
        deadline = time.monotonic() + 30
        while _runs(worker) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not _runs(worker)


def _runs(pid):
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # nobody may be there to take note of its end


def test_rows_that_are_not_a_sweep_s_are_left_as_they_are(tmp_path):
    grid = tmp_path / "grid.yaml"
    grid.write_text("models: [nowhere]\nselections: [dims: [3]]\ntasks: [task: mlm]\n")
    for somebody in (b'{"id": 1, "text": "no end of line"}', b"word"):
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / "rows.jsonl").write_bytes(somebody)
        with pytest.raises(OutputError, match=r"rows\.jsonl:1: is not a row of a sweep"):
            run_sweep(check_grid(grid).valid(), tmp_path / "out")
        assert (tmp_path / "out" / "rows.jsonl").read_bytes() == somebody


def test_a_sweep_that_was_killed_before_its_first_file_goes_on(tmp_path):
    grid = tmp_path / "grid.yaml"
    grid.write_text("models: [nowhere]\nselections: [dims: [3]]\ntasks: [task: mlm]\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".lock").touch()

    def fail(queue, _work):
        yield {**queue.take()[0].to_json(), "status": "failed", "error": "no engine"}

    assert run_sweep(check_grid(grid).valid(), tmp_path / "out", engine=fail).failed == 1


def _lines(folder):
    path = folder / "rows.jsonl"
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def _wait_until_unlocked(folder):
    import fcntl

    with (folder / ".lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)


def test_a_cell_that_fails_costs_its_row_and_is_run_again_when_asked(sweep, small_model, tmp_path):
    text = "selections: [{dims: [3]}, {dims: [99]}, {dims: [4]}]\n"
    models = small_model, tmp_path / "later"
    done = sweep(text, *models)
    assert (done.total, done.done, done.failed) == (6, 2, 4)
    rows = _rows(tmp_path / "out")
    assert [row["status"] for row in rows] == ["done", "failed", "done", *["failed"] * 3]
    assert "no dimension 99" in rows[1]["error"]
    assert all("later" in row["error"] for row in rows[3:])
    assert sweep(text, *models).kept == 6
    assert sweep(text, *models, retry=True).kept == 2
    assert _rows(tmp_path / "out") == rows


def test_a_worker_that_is_killed_costs_the_cell_that_it_had(grid_file, exported, tmp_path):
    killed = []

    def kill_a_child(step, done, total):
        if done == 1 and not killed:
            (child,) = multiprocessing.active_children()
            os.kill(child.pid, signal.SIGKILL)
            killed.append(child)

    grid = check_grid(grid_file("selections: [{each: 0-5}]\n")).valid()
    done = run_sweep(grid, tmp_path / "out", models=exported, progress=kill_a_child)
    assert killed
    assert (done.done, done.failed) == (5, 1)
    (failed,) = [row for row in _rows(tmp_path / "out") if row["status"] == "failed"]
    assert "SIGKILL" in failed["error"]


def test_two_workers_give_the_rows_of_one(grid_file, exported, tmp_path):
    grid = check_grid(grid_file(_SMALL)).valid()
    for name, engine in (("1", in_process), ("2", choose_engine("local", 2))):
        run_sweep(grid, tmp_path / name, models=exported, engine=engine)
    assert _rows(tmp_path / "1") == _rows(tmp_path / "2")


def test_the_table_has_the_rows(sweep, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    assert sweep("selections: [{dims: [99]}, {dims: [3]}]\n").table
    read = parquet.read_table(tmp_path / "out" / "rows.parquet")
    table, rows = read.to_pylist(), _rows(tmp_path / "out")
    types = [str(read.schema.field(name).type) for name in ("factor", "layers", "revision")]
    assert table[1]["warnings"] == rows[1]["warnings"]
    assert types == ["double", "list<element: int64>", "string"]  # though none has a value
    assert [row["status"] for row in table] == ["failed", "done"]
    assert table[1]["delta"] == rows[1]["delta"]
    assert table[1]["controls"] == rows[1]["controls"]
    assert json.loads(table[1]["record"]) == rows[1]["record"]


def test_rows_of_another_grid_are_kept_and_are_not_in_the_table(sweep, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "out"
    sweep("selections: [{each: 0-1}, {dims: [99]}]\n")
    done = sweep("selections: [{each: 1-2}]\n")
    assert (done.total, done.kept, done.failed, done.others) == (2, 1, 0, 1)
    assert [row["dims"] for row in _rows(out)] == [[1], [2], [0]]  # what had failed is gone
    table = parquet.read_table(out / "rows.parquet").to_pylist()
    read = read_rows(out)
    assert [row["dims"] for row in table] == [list(row.dims) for row in read.measured] == [[1], [2]]
    assert (read.failed, read.others) == ((), 1)
    done = sweep("selections: [{each: 0-3}]\n")  # a grid that grew
    assert (done.total, done.kept, done.others) == (4, 3, 0)
    assert [row["dims"] for row in _rows(out)] == [[0], [1], [2], [3]]


def test_a_row_is_read_as_what_was_measured(sweep, tmp_path):
    out = tmp_path / "out"
    sweep("selections: [{random: 2}]\n")
    row = json.loads((out / "rows.jsonl").read_text())

    def read():
        (out / "rows.jsonl").write_text(json.dumps(row) + "\n")
        (one,) = read_rows(out).measured
        return one.selection, one.target, one.ci95, one.control_range, one.warnings

    ends = (row["ci95_low"], row["ci95_high"]), (row["control_low"], row["control_high"])
    assert read() == ("random", "gain and bias", *ends, tuple(row["warnings"]))
    row |= {"sites": ["output", "attention"], "selection": "outliers"}
    row["record"]["recipe"].update(random=None, method="layernorm", sigma=3.0, relax=True)
    row["record"]["recipe"]["evaluation"] = None  # as in older rows, which have no warnings either
    del row["warnings"]
    assert read() == ("layernorm, relax True", "gain and bias at output, attention", *ends, ())


def test_a_model_that_came_late_leaves_no_failure_behind(sweep, small_model, tmp_path):
    assert sweep("selections: [{dims: [1]}]\n", "later").failed == 1
    (tmp_path / "later").symlink_to(small_model)
    sweep("selections: [{dims: [1]}]\n", "later")
    assert [row["status"] for row in _rows(tmp_path / "out")] == ["done"]


def test_rows_of_a_model_that_is_gone_are_not_taken_for_those_of_another_grid(
    sweep, small_model, tmp_path
):
    (tmp_path / "models").mkdir()
    gone = tmp_path / "models" / "gone"
    gone.symlink_to(small_model)
    sweep("selections: [{dims: [1]}]\n", "models/gone")
    gone.unlink()
    with pytest.raises(OutputError, match="has rows of models/gone, where there is no model now"):
        sweep("selections: [{dims: [1]}]\n", "models/gone")
    gone.symlink_to(small_model)
    assert sweep("selections: [{dims: [1]}]\n", "models/gone").kept == 1
    assert len(read_rows(tmp_path / "out").measured) == 1


def test_rows_of_files_that_changed_since_are_not_gone_on_with(sweep, small_model, tmp_path):
    model, out = tmp_path / "model", tmp_path / "out"
    shutil.copytree(small_model, model)
    sweep("selections: [{dims: [1]}]\n", model)
    before = _rows(out)
    patch(small_model, tmp_path / "patched", dims=(5,))
    weights = (tmp_path / "patched" / "model.safetensors").read_bytes()
    told = r"1 of its rows were measured with other files of .*model"
    for name in ("config.json", "vocab.txt", "model.safetensors"):
        content = (model / name).read_bytes()
        (model / name).write_bytes(weights if name == "model.safetensors" else content + b"\n")
        with pytest.raises(OutputError, match=told):
            sweep("selections: [{each: 1-2}]\n", model)
        if name != "model.safetensors":
            (model / name).write_bytes(content)
    assert _rows(out) == before
    # An export that is there is not taken for that of the new weights.
    sweep("selections: [{dims: [1]}]\n", model, out="new")
    assert _rows(tmp_path / "new")[0]["baseline"] != before[0]["baseline"]


def test_a_branch_that_moved_on_the_hub_is_not_gone_on_with(grid_file, small_model, exported):
    (cell,) = make_cells(check_grid(grid_file("selections: [{dims: [1]}]\n")).valid())
    sites, other = {cell.model: ("output",)}, {cell.model: {"model.safetensors": "other"}}
    row = do_job(cell, Measurer(exported, "cpu", sites, other))
    assert row["status"] == "failed"
    assert "other files than its rows" in row["error"]
    assert do_job(cell, Measurer(exported, "cpu", sites, {}))["status"] == "done"


def test_a_start_that_fails_leaves_nothing(grid_file, tmp_path):
    def no_engine(queue, work):
        raise SelectionError("no cluster")
        yield

    grid = check_grid(grid_file("selections: [{dims: [3]}]\n")).valid()
    (tmp_path / "there").mkdir()
    before = sorted(tmp_path.rglob("*"))
    for out in (tmp_path / "a" / "b", tmp_path / "there"):
        with pytest.raises(SelectionError, match="no cluster"):
            run_sweep(grid, out, engine=no_engine)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_of_something_else_and_one_in_use_are_refused(grid_file, tmp_path):
    grid = check_grid(grid_file("selections: [{dims: [3]}]\n")).valid()
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    for act in (run_sweep, lambda grid, folder: preview_sweep(make_cells(grid), folder)):
        with pytest.raises(OutputError, match="not a sweep directory"):
            act(grid, other)
    assert [path.name for path in other.iterdir()] == ["notes.txt"]
    with (
        open_folder(tmp_path / "out"),
        pytest.raises(OutputError, match="another run is writing there"),
        open_folder(tmp_path / "out"),
    ):
        pass


def test_a_file_system_without_locks_does_not_stop_a_sweep(tmp_path, monkeypatch):
    def not_there(_descriptor, _how):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", not_there)
    with open_folder(tmp_path / "out") as journal:
        assert journal.entries == {}


@pytest.mark.parametrize(
    ("seconds", "words"), [(3, "3 s"), (80, "80 s"), (200, "3 min"), (7300, "2 h")]
)
def test_an_estimate_is_as_exact_as_it_can_be(seconds, words):
    assert duration(seconds) == words
