import json
import sys
import tracemalloc
import weakref
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file
from training_runs import HIDDEN, LAYERS, make_template, write_checkpoint, write_run

from surgeon import open_checkpoint, rank_by_layernorm, read_zscores, trace_training
from surgeon.errors import CheckpointError, OutputError, SelectionError
from surgeon.study import trace as trace_module
from surgeon.study.training_run import TransientOutlier, find_checkpoints

# Dim 5 leaves, comes back and leaves again; 9 leaves at the end; 3 was out and is no more.
_OUTS = {0: [], 10: [5, 3], 20: [3], 30: [5], 40: [5], 100: [5, 9]}


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return make_template(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="module")
def run(template, tmp_path_factory):
    return write_run(template, tmp_path_factory.mktemp("runs") / "run", _OUTS)


def test_a_dimension_left_at_the_first_step_from_which_on_it_never_came_back(run, tmp_path):
    trace = trace_training([run])
    assert trace_training(str(run), output=str(tmp_path / "trace.json")) == trace
    assert trace.name == "run"
    assert trace.steps == (0, 10, 20, 30, 40, 100)
    assert set(trace.outliers) == {5, 9}
    courses = {course.dim: course for course in trace.trajectories}
    five, nine = courses[5], courses[9]
    assert (five.left_at, five.last_in_bulk, five.flagged_at) == (30, 20, (10, 30, 40, 100))
    assert (nine.left_at, nine.last_in_bulk, nine.flagged_at) == (100, 40, (100,))
    assert five.score == (0, 1, 0, 1, 1, 1)
    assert trace.transient == (TransientOutlier(dim=3, first=10, last=20),)


def test_one_that_is_out_at_the_first_checkpoint_left_by_then(template, tmp_path):
    write_run(template, tmp_path / "run", {7: [2], 9: [2]})
    (course, *others) = trace_training([tmp_path / "run"]).trajectories
    assert (course.dim, course.left_at, course.last_in_bulk) == (2, 7, None)
    assert {(other.left_at, other.outlier) for other in others} == {(None, False)}


def test_without_final_outliers_the_strongest_others_are_told_and_the_bulk_is_all(
    template, tmp_path
):
    write_run(template, tmp_path / "run", {0: [], 1: [4], 2: []})
    trace = trace_training([tmp_path / "run"], top=3)
    assert trace.outliers == ()
    assert repr(trace) == "<Trace of run: 3 checkpoints, outliers none>"
    assert [course.outlier for course in trace.trajectories] == [False] * 3
    assert trace.bulk.dims == HIDDEN
    assert trace.transient == (TransientOutlier(4, 1, 1),)
    ranking = rank_by_layernorm(open_checkpoint(tmp_path / "run" / "step-2"))
    assert [c.dim for c in trace.trajectories] == [d.dim for d in ranking.dimensions[:3]]


@pytest.mark.parametrize(("sigma", "min_layers"), [(3.0, 0.5), (2.0, 1), (0.8, 3), (1.5, 4)])
def test_every_checkpoint_is_judged_as_scan_judges_it(run, sigma, min_layers):
    trace = trace_training([run], sigma=sigma, min_layers=min_layers, top=HIDDEN)
    flagged = {step: set() for step in trace.steps}
    for course in trace.trajectories:
        for step, reach in zip(trace.steps, course.reach, strict=True):
            assert (step in course.flagged_at) == (reach > sigma)
            if step in course.flagged_at:
                flagged[step].add(course.dim)
    for step in trace.steps:
        checkpoint = open_checkpoint(run / f"step-{step}")
        ranking = rank_by_layernorm(checkpoint, sigma=sigma, min_layers=min_layers)
        assert flagged[step] == set(ranking.outliers)
    assert trace.outliers == ranking.outliers
    assert trace.criterion == ranking.criterion


def test_the_series_are_means_over_layers_and_the_bulk_is_all_but_the_final_outliers(run):
    trace = trace_training([run], sigma=np.float32(3))
    assert type(trace.sigma) is float  # which JSON knows
    rest = [dim for dim in range(HIDDEN) if dim not in trace.outliers]
    assert trace.bulk.dims == len(rest)
    for number, step in enumerate(trace.steps):
        zscores = read_zscores(open_checkpoint(run / f"step-{step}"))
        for course in trace.trajectories:
            assert course.gain_z[number] == pytest.approx(zscores.gain[:, course.dim].mean())
            assert course.bias_z[number] == pytest.approx(zscores.bias[:, course.dim].mean())
        strength = np.minimum(abs(zscores.gain), abs(zscores.bias)).mean(axis=0)[rest]
        assert trace.bulk.strength.median[number] == pytest.approx(np.median(strength))
        assert trace.bulk.strength.p99[number] == pytest.approx(np.percentile(strength, 99))


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("step1000-tokens4B", 1000),
        ("stage2-ingredient1-step1000-tokens3B", 1000),
        ("multiberts-seed_0-step_900k", 900_000),
        ("multiberts-seed_0-step_1M", 1_000_000),
        ("step-1.5M", 1_500_000),
        ("epoch=3-step=1200", 1200),
        ("checkpoint-500-epoch-2", 500),
        ("global_step_12", 12),
        ("ckpt_7", 7),
        ("epoch-4", 4),
        ("run-0800", 800),
    ],
)
def test_the_step_is_told_by_its_mark_or_the_only_number(name, step):
    other = "other-step-7777777"
    _, checkpoints = find_checkpoints([f"runs/{name}", f"runs/{other}"])
    assert checkpoints[0].step == step


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("v2-100", "v2-100: may be step 2 or 100 by its name; leave it out with `skip` v2-100"),
        ("step1-step2", "may be step 1 or 2 by its name"),
        ("epoch-1.5", "1.5 is not a whole number of steps"),
        ("checkpoint-best", "has no step in its name; leave it out with `skip` checkpoint-best"),
        ("step-9223372036854775808", "is not a whole number of steps"),
    ],
)
def test_a_name_that_tells_no_one_step_is_refused(name, told):
    with pytest.raises(SelectionError, match=told):
        find_checkpoints(["runs/step-1", f"runs/{name}"])


def test_checkpoints_that_cannot_be_read_or_placed_are_skipped_by_name(template, tmp_path):
    folder = write_run(template, tmp_path / "run", {0: [], 10: [5], 20: [5]})
    write_checkpoint(template, folder / "checkpoint-best", [])
    weights = folder / "step-10" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="`skip` step-10 leaves it out"):
        trace_training([folder], skip=["*-best"])
    trace = trace_training([folder], skip=["*-best", "step-10"])
    assert trace.steps == (0, 20)
    with pytest.raises(SelectionError, match="`skip` 'best': matches none of checkpoint-best, "):
        trace_training([folder], skip=["best"])
    with pytest.raises(SelectionError, match="`skip`: leaves out every checkpoint"):
        trace_training([folder], skip=["*"])


def test_the_step_of_a_name_orders_the_checkpoints(template, tmp_path):
    names = {"v2-step_100": [8], "v2-step_20": [], "v2-step_3-last": []}
    for name, out in names.items():
        write_checkpoint(template, tmp_path / name, out)
    trace = trace_training([tmp_path / name for name in names])
    assert trace.steps == (3, 20, 100)
    assert trace.outliers == (8,)
    assert trace.name == tmp_path.name


def test_weight_files_alone_are_checkpoints_too(run, tmp_path):
    for step in (0, 100):
        source = run / f"step-{step}" / "model.safetensors"
        (tmp_path / f"step_{step}.safetensors").write_bytes(source.read_bytes())
    trace = trace_training(sorted(tmp_path.iterdir()))
    assert trace.steps == (0, 100)
    assert set(trace.outliers) == {5, 9}


def test_norms_without_a_bias_are_traced_by_their_gain(tmp_path):
    for step in (1, 2):
        folder = tmp_path / "run" / f"step-{step}"
        folder.mkdir(parents=True)
        gain = np.ones(HIDDEN, np.float32)
        gain[6] = step
        names = [f"model.layers.{layer}.post_feedforward_layernorm.weight" for layer in range(3)]
        save_file(dict.fromkeys(names, gain), folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({"model_type": "gemma2"}))
    output = tmp_path / "trace.parquet"
    trace = trace_training([tmp_path / "run"], output=output)
    assert trace.outliers == (6,)
    assert trace.trajectories[0].left_at == 2
    assert trace.trajectories[0].bias_z is None
    assert trace.bulk.bias_z is None
    assert pq.read_table(output)["bias_z"].null_count == 2 * 3 * HIDDEN
    json.dumps(trace.to_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        (["step-1"], r"step-1: the only checkpoint found; a trace takes two or more"),
        (["step-1", "best"], r"best: has no step in its name"),
        (["a-7", "b-7"], r"a-7 and .*b-7: both are step 7; leave one out, as with `skip` b-7"),
        ([], r"holds no checkpoints"),
    ],
)
def test_a_folder_that_makes_no_series_is_refused_in_a_line(template, tmp_path, steps, told):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in steps:
        write_checkpoint(template, folder / name, [])
    with pytest.raises(SelectionError, match=told) as caught:
        trace_training([folder])
    assert "\n" not in str(caught.value)


def test_one_checkpoint_or_a_path_with_revisions_is_refused(run):
    with pytest.raises(SelectionError, match="step-10: is one checkpoint"):
        trace_training([run / "step-10"])
    with pytest.raises(SelectionError, match="one checkpoint at most"):
        trace_training([run / "step-10" / "model.safetensors"])
    with pytest.raises(SelectionError, match="no checkpoints"):
        trace_training([])
    with pytest.raises(SelectionError, match="`top` 0: give a number of 1 or more"):
        trace_training([run], top=0)
    with pytest.raises(SelectionError, match="is not a Hub id; leave it out"):
        trace_training([run], revisions="step*")
    with pytest.raises(SelectionError, match="for one model on the Hub; 2 are given"):
        trace_training([run, run], revisions="step*")


def test_checkpoints_of_another_size_are_no_series_and_leave_no_file(run, minilm, tmp_path):
    (tmp_path / "minilm-9").symlink_to(minilm)
    output = tmp_path / "out" / "trace.parquet"
    output.parent.mkdir()
    told = r"6 layers of 384 dimensions, BERT .* has 4 layers of 32 dimensions, BERT"
    with pytest.raises(CheckpointError, match=told):
        trace_training([run / "step-0", tmp_path / "minilm-9"], output=output)
    assert not list(output.parent.iterdir())


def test_no_checkpoint_stays_open(run, monkeypatch):
    opened, alive, open_one = [], [], trace_module.open_for_scan

    def watched(*given, **how):
        checkpoint = open_one(*given, **how)
        opened.append(weakref.ref(checkpoint))
        return checkpoint

    monkeypatch.setattr(trace_module, "open_for_scan", watched)
    count = lambda *_: alive.append(sum(one() is not None for one in opened))  # noqa: E731
    trace_training([run], progress=count)
    assert (len(opened), alive) == (len(_OUTS), [0] * len(_OUTS))


def test_a_longer_run_takes_little_more_memory(tmp_path):
    hidden, layers = 4096, 24

    def peak(steps):
        output = tmp_path / f"{len(steps)}.parquet"
        tracemalloc.start()
        trace_training([tmp_path / f"step-{step}" for step in steps], output=output)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    rng = np.random.default_rng(0)
    for step in range(24):
        (tmp_path / f"step-{step}").mkdir()
        names = [
            f"encoder.layer.{layer}.output.LayerNorm.{kind}"
            for layer in range(layers)
            for kind in ("weight", "bias")
        ]
        tensors = {name: rng.normal(size=hidden).astype(np.float32) for name in names}
        save_file(tensors, tmp_path / f"step-{step}" / "model.safetensors")
        (tmp_path / f"step-{step}" / "config.json").write_text('{"model_type": "bert"}')
    peak(range(2))  # what the first import takes
    short, long = peak(range(4)), peak(range(24))
    of_one = 2 * layers * hidden * 8  # bytes of the z-scores of a checkpoint
    assert (long - short) / 20 < of_one / 4


def test_the_table_has_every_step_layer_and_dimension(run, tmp_path):
    output = tmp_path / "trace.parquet"
    trace = trace_training([run], output=output)
    file = pq.ParquetFile(output)
    assert file.num_row_groups == len(trace.steps)
    for number, step in enumerate(trace.steps):
        rows = file.read_row_group(number)
        zscores = read_zscores(open_checkpoint(run / f"step-{step}"))
        assert set(rows["step"].to_pylist()) == {step}
        np.testing.assert_array_equal(rows["layer"], np.repeat(range(LAYERS), HIDDEN))
        np.testing.assert_array_equal(rows["dim"], np.tile(range(HIDDEN), LAYERS))
        np.testing.assert_allclose(rows["gain_z"], zscores.gain.ravel(), rtol=1e-6)
        np.testing.assert_allclose(rows["bias_z"], zscores.bias.ravel(), rtol=1e-6)
    assert [path.name for path in tmp_path.iterdir()] == ["trace.parquet"]


def test_the_json_file_is_the_document(run, tmp_path):
    output = tmp_path / "trace.json"
    trace = trace_training([run], output=output)
    document = json.loads(output.read_text())
    assert document == json.loads(json.dumps(trace.to_json()))
    assert document["steps"] == list(_OUTS)
    assert set(document["outliers"]) == {5, 9}
    assert document["passing"] == [{"dim": 3, "first": 10, "last": 20}]
    assert len(document["bulk"]["strength"]["p99"]) == len(_OUTS)


def test_an_output_that_cannot_be_is_refused_before_anything_is_read(run, tmp_path, monkeypatch):
    def never(step, done, total):
        raise AssertionError

    def refused(name, told, *, force=False):
        with pytest.raises(OutputError, match=told):
            trace_training([run], output=tmp_path / name, force=force, progress=never)

    (tmp_path / "old.json").write_text("old")
    (tmp_path / "folder.json").mkdir()
    refused("trace.csv", "has the suffix .csv; give .parquet .* or .json")
    refused("trace", "has no suffix")
    refused("old.json", "already exists; .* `force=True`")
    refused("folder.json", "is a directory", force=True)
    with pytest.raises(OutputError, match=r"`output` /proc/trace\.json: No such .*; name another$"):
        trace_training([run], output=Path("/proc/trace.json"), progress=never)
    refused("nowhere/trace.json", "no folder .*nowhere; make it first")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    refused("trace.parquet", r"pip install 'norm-surgeon\[study\]'")
    trace_training([run], output=tmp_path / "old.json", force=True)
    assert json.loads((tmp_path / "old.json").read_text())["model"] == "run"
