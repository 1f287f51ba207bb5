import json
import shutil

import pyarrow.parquet as pq
import pytest
from artifacts import edit_tensors, make_pickle
from hub_server import commit_of
from training_runs import make_template, write_run

_ID = "org/small-run"
_TRACE = ("trace", _ID, "--revisions", "step*")
_OUTS = {0: [], 1000: [5], 2000: [], 10000: [5], 11000: [5, 9]}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    root = tmp_path_factory.mktemp("training")
    folder = write_run(make_template(root / "template"), root / "run", _OUTS, "step{}")
    name = "bert.embeddings.word_embeddings.weight"
    for step in _OUTS:  # no two steps of a training have the same weights
        edit_tensors(folder / f"step{step}", lambda t, step=step: t[name][0, 0].add_(step))
    return folder


@pytest.fixture
def hub(checkpoints, serving):
    server = serving({_ID: checkpoints / "step11000"})
    server.branches[_ID] = {f"step{step}": checkpoints / f"step{step}" for step in _OUTS}
    return server


def test_people_see_when_each_outlier_left_and_how_far_it_went(checkpoints, done, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    out = done("trace", checkpoints, "--top", "1").out
    assert "run: BERT, 4 layers, 32 dimensions; 5 checkpoints, steps 0 to 11000" in out
    (five,) = [line for line in out.splitlines() if line.startswith("│   5 │")]
    assert "at step 10000" in five
    assert "0 → 4 of 4" in five
    (nine,) = [line for line in out.splitlines() if line.startswith("│   9 │")]
    assert "at step 11000" in nine
    assert "The bulk, 30 dimensions" in out


def test_without_outliers_people_are_told_so(checkpoints, done):
    out = done("trace", *(checkpoints / f"step{step}" for step in (0, 1000, 2000))).out
    assert "No dimension meets the criterion at step 2000, the last" in out
    assert "Outliers for a time, but not at the end: 5 (step 1000)" in out


def test_json_is_one_document_and_nothing_else(checkpoints, tmp_path, json_of):
    output = tmp_path / "trace.parquet"
    document = json_of("trace", checkpoints, "-o", output)
    left = {one["dim"]: one["left_at"] for one in document["dimensions"] if one["outlier"]}
    assert left == {5: 10000, 9: 11000}
    assert document["bytes_read"] is None
    assert pq.read_metadata(output).num_rows == len(_OUTS) * 4 * 32


def test_revisions_on_the_hub_are_read_by_ranges_alone(hub, checkpoints, tmp_path, done, json_of):
    captured = done(*_TRACE, "--json")
    remote = json.loads(captured.out)
    assert "by range requests" in " ".join(captured.err.split())
    size = (checkpoints / "step0" / "model.safetensors").stat().st_size
    assert 0 < remote["bytes_read"] <= hub.sent
    assert remote["bytes_read"] < 0.1 * size * len(_OUTS)
    weights = [r for r in hub.requests if r.path.split("?")[0].endswith("model.safetensors")]
    assert weights
    assert all(request.range or request.method == "HEAD" for request in weights)
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
    assert [one["revision"] for one in remote["checkpoints"]] == [f"step{s}" for s in _OUTS]
    local = json_of("trace", checkpoints)
    for key in ("steps", "outliers", "dimensions", "passing", "bulk", "criterion"):
        assert remote[key] == local[key]


def test_what_is_kept_meanwhile_goes_and_the_cache_it_was_in_stays(
    checkpoints, tmp_path, serving, json_of
):
    (tmp_path / "assets").mkdir()
    server = serving({"small-run": checkpoints / "step0"})
    server.branches["small-run"] = {f"step{n}": checkpoints / f"step{n}" for n in (0, 1000)}
    assert json_of("trace", "small-run", "--revisions", "step*")["steps"] == [0, 1000]
    assert list((tmp_path / "assets").iterdir()) == []


def test_names_are_skipped_of_folders_and_of_revisions_and_a_pattern_chooses(
    hub, checkpoints, json_of
):
    for named in ([str(checkpoints)], [_ID, "--revisions", "step*"]):
        traced = json_of("trace", *named, "--skip", "step?000", "--skip", "step0")
        assert traced["steps"] == [10000, 11000]
    assert json_of("trace", _ID, "--revisions", "step1????")["steps"] == [10000, 11000]


def test_wrong_patterns_and_ids_are_a_line(hub, refused):
    for named, complaint in (
        ([_ID, "--revisions", "epoch*"], "matches none of the 7 branches and tags"),
        ([_ID, "--revisions", "*"], "main: has no step in its name"),
        ([_ID, "--revisions", "step0"], "the only checkpoint found"),
        ([_ID], "add --revisions 'step*'"),
        (["org/nothing", "--revisions", "step*"], "no such model"),
    ):
        refused("trace", *named, says=complaint)


def test_a_revision_that_cannot_be_read_is_named(hub, checkpoints, tmp_path, refused):
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "config.json").write_bytes((checkpoints / "step0" / "config.json").read_bytes())
    (damaged / "pytorch_model.bin").write_bytes(b"any")
    hub.branches[_ID]["step3000"] = damaged
    told = refused(*_TRACE, says="step3000: ")
    assert "pytorch_model.bin: damaged, or holds more than plain tensors" in told
    assert "--skip step3000 leaves it out" in told


@pytest.mark.parametrize("legacy", [False, True])
def test_pickles_at_the_steps_are_read_by_ranges(hub, checkpoints, tmp_path, json_of, legacy):
    for step in _OUTS:
        folder = shutil.copytree(checkpoints / f"step{step}", tmp_path / f"{step}")
        make_pickle(folder, legacy=legacy)
        hub.branches[_ID][f"step{step}"] = folder
    remote = json_of(*_TRACE)
    assert {r.range is None for r in hub.requests if r.file == "pytorch_model.bin"} == {False}
    assert remote["dimensions"] == json_of("trace", checkpoints)["dimensions"]


def test_revisions_with_the_weights_of_a_later_one_are_left_out_and_listed(
    hub, checkpoints, done, refused
):
    last = max(_OUTS)
    hub.branches[_ID] |= dict.fromkeys(("step50", "step60"), checkpoints / f"step{last}")
    captured = done(*_TRACE, "--json")
    document = json.loads(captured.out)
    assert document["steps"] == list(_OUTS)
    assert document["repeats"] == [{"step": s, "same_as": last} for s in (50, 60)]
    assert "2 steps have the same weights" in " ".join(captured.err.split())
    refused("trace", _ID, "--revisions", "step[56]0", says="have the same weights on the Hub")


def test_a_trace_that_was_stopped_goes_on(hub, tmp_path, json_of, refused):
    hub.status, hub.failing = 418, f"/{_ID}/resolve/{commit_of(_ID, 'step11000')}"
    refused(*_TRACE, says="418")
    read = {r.path.split("/resolve/")[1][:40] for r in hub.requests if "/resolve/" in r.path}
    assert len(read) == len(_OUTS)
    cut = commit_of(_ID, "step0")
    (kept,) = (tmp_path / "assets").rglob(f"{cut}-*.npz")
    kept.write_bytes(b"")  # as a disk that failed leaves it
    hub.status = None
    hub.requests.clear()
    assert set(json_of(*_TRACE)["outliers"]) == {5, 9}
    resolved = {r.path.split("/resolve/")[1][:40] for r in hub.requests if "/resolve/" in r.path}
    assert resolved == {cut, commit_of(_ID, "step11000")}
    assert not list((tmp_path / "assets").rglob("*"))


def test_a_limit_is_waited_for_as_long_as_the_hub_asks(hub, done, waited):
    hub.status, hub.failures, hub.headers = 429, 2, {"RateLimit": '"api";r=0;t=290'}
    hub.failing = "/api/models/"
    done(*_TRACE)
    # A busy machine may be slow to answer too, for which a shorter wait is drawn.
    assert [290 <= seconds < 300 for seconds in waited if seconds > 10] == [True, True]


def test_wrong_calls_are_a_line_before_anything_is_read(checkpoints, tmp_path, refused):
    step = checkpoints / "step0"
    (tmp_path / "old.json").write_text("old")
    for arguments, complaint in (
        ([step], "is one checkpoint"),
        ([checkpoints, "--sigma", "0"], "--sigma 0.0"),
        ([checkpoints, "--min-layers", "9"], "--min-layers 9"),
        ([checkpoints, "--plot", tmp_path / "a.bmp"], "suffix .bmp"),
        ([checkpoints, "-o", tmp_path / "a.csv"], "suffix .csv"),
        ([checkpoints, "-o", tmp_path / "old.json"], "--force"),
        ([checkpoints, "--force"], "--force: replaces a file"),
        ([step, tmp_path / "step-7"], "no such file"),
    ):
        refused("trace", *arguments, says=complaint)


@pytest.mark.parametrize(
    ("name", "start"),
    [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.pdf", b"%PDF"), ("a.html", b"<!DOCTYPE")],
)
def test_a_picture_is_made_in_every_form(checkpoints, tmp_path, done, name, start):
    done("trace", checkpoints, "--plot", tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(start)
    assert [path.name for path in tmp_path.iterdir()] == [name]
