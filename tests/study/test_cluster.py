import json

import pytest
import ray
from forked import in_process
from hub_server import connect, serve
from small_models import write_small_model

from surgeon import build_atlas
from surgeon.errors import SelectionError
from surgeon.study.engines import choose_engine
from surgeon.study.grid import check_grid
from surgeon.study.sweep import run_sweep

# Ray starts a cluster of processes, one after the other.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray")]


@pytest.fixture(scope="module")
def cluster():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def _rows(folder):
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def test_a_cluster_gives_the_rows_of_this_machine(cluster, grid_file, tmp_path):
    text = "selections: [{each: 0-15}, {random: 2}, {dims: [99]}]\nseeds: [0, 1]\n"
    grid, models = check_grid(grid_file(text)).valid(), tmp_path / "models"
    here = run_sweep(grid, tmp_path / "here", models=models, engine=in_process)
    engine = choose_engine("ray", workers=2, cpus=1)
    there = run_sweep(grid, tmp_path / "there", models=models, engine=engine)
    assert (here.done, here.failed) == (there.done, there.failed) == (34, 2)
    assert _rows(tmp_path / "there") == _rows(tmp_path / "here")


def test_a_cluster_builds_the_atlas_of_this_machine(tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    ray.shutdown()
    made = {f"org/m{n}": write_small_model(tmp_path / f"m{n}", n) for n in range(6)}
    with serve(made) as hub:
        connect(monkeypatch, hub.url, tmp_path / "cache")
        tables = []
        for name, engine in (("here", in_process), ("ray", choose_engine("ray", workers=2))):
            out = tmp_path / f"{name}.parquet"
            assert build_atlas([*made, "org/none"], out, engine=engine, rate=100).failed == 1
            tables.append(parquet.read_table(out).drop_columns("seconds"))
    assert tables[0] == tables[1]


def test_a_cluster_that_does_not_answer_is_told_by_its_address(grid_file, tmp_path):
    ray.shutdown()
    grid = check_grid(grid_file("selections: [{dims: [3]}]\n")).valid()
    engine = choose_engine("ray", workers=1, address="127.0.0.1:1")
    with pytest.raises(SelectionError, match=r"`address` 127\.0\.0\.1:1: "):
        run_sweep(grid, tmp_path / "out", engine=engine)


def test_a_worker_that_no_node_has_room_for_is_refused(grid_file, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    ray.shutdown()
    ray.init(num_cpus=1, num_gpus=0, include_dashboard=False, log_to_driver=False)
    grid = check_grid(grid_file("selections: [{dims: [3]}]\n")).valid()
    for gpus, complaint in (
        (1, r"`cpus` 1 `gpus` 1; the largest have \d+ CPUs and 0 GPUs"),
        (0.5, "`gpus` 0.5"),
    ):
        engine = choose_engine("ray", workers=1, gpus=gpus)
        with pytest.raises(SelectionError, match=complaint):
            run_sweep(grid, tmp_path / "out", engine=engine)
    ray.shutdown()
    assert not (tmp_path / "out").exists()
