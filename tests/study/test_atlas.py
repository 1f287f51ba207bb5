"""An atlas of the models of a local Hub, of which some fail in every way that a model can."""

import functools
import itertools
import json
import math
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from forked import in_process
from hub_server import commit_of, connect, serve
from small_models import write_small_model

from surgeon import build_atlas, open_checkpoint, rank_by_layernorm, read_zscores
from surgeon.errors import HubUnavailableError, OutputError, SelectionError
from surgeon.study.atlas import preview_atlas
from surgeon.study.engines import JobQueue, choose_engine
from surgeon.study.run import reason_of
from surgeon.study.targets import Target, read_list

parquet = pytest.importorskip("pyarrow.parquet")

_FAST = 10_000.0  # models a second: as fast as it goes
_build = functools.partial(build_atlas, engine=in_process, rate=_FAST)
_CHECKPOINTS = 20
_MODELS = 90
_BROKEN = {  # the id of a model that fails → what its row says
    "bad/gated": "accept its terms",
    "bad/truncated": "truncated",
    "bad/hostile": "the header claims",
    "bad/pickle": "pytorch_model.bin: damaged, or holds more than plain tensors",
    "bad/unknown": "mystery",
    "bad/empty": "no weights in it",
    "bad/other": "no tensor named like",
    "bad/not-finite": "not finite",
    "bad/name": "has the unknown dtype",
    "bad/missing": "no such model",
    "bad/gone@v9": "no revision 'v9'",
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoints")
    return [write_small_model(root / str(seed), seed) for seed in range(_CHECKPOINTS)]


@pytest.fixture(scope="module")
def broken(checkpoints, tmp_path_factory):
    """Repositories that fail, by their id."""
    root = tmp_path_factory.mktemp("broken")
    names = [key.partition("@")[0].removeprefix("bad/") for key in _BROKEN if "missing" not in key]
    made = {name: Path(shutil.copytree(checkpoints[0], root / name)) for name in names}
    weights = {name: folder / "model.safetensors" for name, folder in made.items()}
    with weights["truncated"].open("ab") as file:
        file.truncate(file.tell() - 10)
    # A command to a terminal, in a name.
    header = b'{"\\u001b[31m": {"dtype": "X9", "shape": [], "data_offsets": [0, 0]}}'
    weights["name"].write_bytes(len(header).to_bytes(8, "little") + header)
    content = weights["hostile"].read_bytes()
    weights["hostile"].write_bytes((2**62).to_bytes(8, "little") + content[8:])
    weights["pickle"].rename(made["pickle"] / "pytorch_model.bin")
    (made["unknown"] / "config.json").write_text('{"model_type": "mystery"}')
    weights["empty"].unlink()
    (made["other"] / "config.json").write_text('{"model_type": "gpt2"}')
    gain = open_checkpoint(made["not-finite"]).tensors["encoder.layer.1.output.LayerNorm.weight"]
    content = bytearray(weights["not-finite"].read_bytes())
    content[gain.start : gain.start + 4] = np.float32(np.nan).tobytes()
    weights["not-finite"].write_bytes(content)
    return {f"bad/{name}": folder for name, folder in made.items()}


@pytest.fixture
def hub(checkpoints, broken, tmp_path, monkeypatch):
    names = {f"org/m{n}": checkpoints[n % _CHECKPOINTS] for n in range(_MODELS - len(_BROKEN))}
    with serve({**names, **broken}) as server:
        server.gated.add("bad/gated")
        connect(monkeypatch, server.url, tmp_path / "cache")
        yield server


def _table(path):
    return parquet.read_table(path).to_pylist()


def _rows(path):
    """Return the rows of a table without the time that each took."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in _table(path)]


def _by_model(path):
    rows = itertools.groupby(_table(path), key=lambda row: row["model"])
    return {model: list(group) for model, group in rows}


def _files_of(hub, model):
    starts = (f"/cdn/{model}/", f"/{model}/resolve/", f"/api/resolve-cache/models/{model}/")
    return [request for request in hub.requests if request.path.startswith(starts)]


def _needed(checkpoint):
    """Return the bytes of a model that a scan cannot do without."""
    sites = [site for site in checkpoint.sites if site.role == "output"]
    names = [name for site in sites for name in (site.gain, site.bias) if name]
    vectors = sum(checkpoint.tensors[n].end - checkpoint.tensors[n].start for n in names)
    headers = sum(min(t.start for t in file.tensors.values()) for file in checkpoint.files)
    return headers + vectors + sum(p.stat().st_size for p in checkpoint.directory.glob("*.json"))


def _check_rows(rows, checkpoint):
    ranking, zscores = rank_by_layernorm(checkpoint), read_zscores(checkpoint)
    by_dim = sorted(ranking.dimensions, key=lambda dimension: dimension.dim)
    assert [row["dim"] for row in rows] == list(range(ranking.hidden_size))
    assert [row["score"] for row in rows] == [dimension.score for dimension in by_dim]
    assert [row["dim"] for row in rows if row["outlier"]] == sorted(ranking.outliers)
    expected = {
        "strength": [dimension.strength for dimension in by_dim],
        "gain_z": zscores.gain.mean(axis=0),
        "max_gain_z": np.abs(zscores.gain).max(axis=0),
    }
    if zscores.bias is None:
        assert {row["bias_z"] for row in rows} == {None}
    else:
        expected["bias_z"] = zscores.bias.mean(axis=0)
    for name, values in expected.items():
        np.testing.assert_allclose([row[name] for row in rows], values, atol=1e-5)
    whole = {(r["architecture"], r["layers"], r["hidden_size"], r["status"]) for r in rows}
    shape = ranking.architecture, ranking.layers, ranking.hidden_size
    assert whole == {(*shape, "done")}
    return len(ranking.outliers)


def test_many_models_are_mapped_and_each_that_fails_costs_one_row(hub, checkpoints, tmp_path):
    names = [model for model in hub.repositories if model.startswith("org/")]
    models = [*names[:60], *_BROKEN, *names[60:], names[0]]
    out = tmp_path / "atlas.parquet"
    built = build_atlas(models, out, engine=choose_engine("local", 2), rate=_FAST)
    assert (built.total, built.done) == (_MODELS, _MODELS - 11), built.reasons
    assert (built.failed, built.kept) == (11, 0)

    found = _by_model(out)
    assert list(found) == [model.partition("@")[0] for model in models[:-1]]
    opened = [open_checkpoint(folder) for folder in checkpoints]
    counts = []
    for number, name in enumerate(names):
        checkpoint, rows = opened[number % _CHECKPOINTS], found[name]
        counts.append(_check_rows(rows, checkpoint))
        assert {row["revision"] for row in rows} == {commit_of(name)}
        sent = sum(request.sent for request in _files_of(hub, name) if request.file)
        assert {row["bytes_read"] for row in rows} == {sent}
        assert sent <= 1.1 * _needed(checkpoint)
        placed = sum("/resolve/" in request.path for request in _files_of(hub, name))
        assert placed == len(list(checkpoint.directory.iterdir()))
    assert len({row["architecture"] for rows in found.values() for row in rows}) == 5
    assert built.with_outliers == sum(count > 0 for count in counts)
    assert 0 < built.with_outliers < built.done

    for model, reason in _BROKEN.items():
        (row,) = found[model.partition("@")[0]]
        assert row["status"] == "failed"
        assert reason in row["error"]
        assert row["dim"] is row["score"] is row["outlier"] is None
        assert row["error"].isprintable()
        assert row["bytes_read"] < 100_000
    assert sum(models for _, models in built.reasons) == 11

    hub.requests.clear()
    again = build_atlas(models, out, rate=_FAST)
    assert (again.kept, again.bytes_read, hub.requests) == (_MODELS, 0, [])
    assert _by_model(out) == found


@pytest.mark.slow
def test_an_atlas_that_is_killed_again_and_again_ends_as_one_that_was_not(hub, tmp_path):
    models = [*_BROKEN, *list(hub.repositories)[:70]]
    listed = tmp_path / "models.txt"
    listed.write_text("\n".join(models))
    whole, out = tmp_path / "whole.parquet", tmp_path / "killed.parquet"
    _build(str(listed), whole)
    command = [sys.executable, "-m", "surgeon", "atlas", str(listed), "-o", str(out)]
    command += ["--workers", "2", "--rate", "1000"]
    rows, done = tmp_path / "killed.parquet.rows.jsonl", set()
    for target in (5, 50):
        hub.requests.clear()
        process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while _lines(rows) <= target and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        time.sleep(0.3)  # what the workers had asked for comes in, and they end
        assert not out.exists()
        assert not [model for model in done if _files_of(hub, model)]
        done = {json.loads(row)["model"] for row in rows.read_bytes().splitlines()[1:-1]}
    assert len(done) >= 49
    with rows.open("ab") as file:
        file.write(b'{"model":"org/m6","as')  # as a kill in the middle of a write leaves it
    hub.requests.clear()
    _build(read_list(listed), out)
    assert not [model for model in done if _files_of(hub, model)]
    assert _rows(out) == _rows(whole)
    assert not list(tmp_path.glob(".killed*"))


def _lines(path):
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def test_a_hub_that_says_when_is_asked_then_and_one_that_stays_away_is_no_row(hub, tmp_path):
    out = tmp_path / "a.parquet"
    hub.status, hub.failures, hub.headers = 429, 1, {"Retry-After": "1"}
    assert _build(["org/m0"], out).failed == 0
    first, second, *_ = [request.at for request in hub.requests]
    assert second - first >= 1
    hub.failing, hub.failures, hub.headers = "/cdn/org/m1", None, {"Retry-After": "999"}
    with pytest.raises(
        HubUnavailableError, match=r"could not read 1 of the models.*rate limit of .*999 s"
    ):
        _build(["org/m0", "org/m1", "org/m2"], out)
    assert {row["model"] for row in _table(out)} == {"org/m0", "org/m2"}
    hub.status = None
    built = _build(["org/m0", "org/m1", "org/m2"], out)
    assert (built.done, built.failed, built.kept) == (3, 0, 2)


def test_a_token_that_has_expired_stops_the_run_and_costs_no_row(hub, tmp_path, monkeypatch):
    out, models = tmp_path / "a.parquet", [f"org/m{n}" for n in range(20)]
    hub.expired = "hf_old"
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    with pytest.raises(
        HubUnavailableError, match=r"read 5 of the models.*is expired.*run it again"
    ):
        _build(models, out)
    monkeypatch.delenv("HF_TOKEN")
    built = _build(models, out)
    assert (built.done, built.failed, built.kept) == (20, 0, 0)


def test_failed_models_are_tried_again_when_asked_and_a_changed_list_keeps_what_is_there(
    hub, tmp_path
):
    out = tmp_path / "a.parquet"
    _build(["org/m0", "bad/gated"], out)
    hub.gated.clear()
    hub.requests.clear()
    assert _build(["bad/gated"], out).failed == 1
    assert hub.requests == []
    ahead = preview_atlas(["bad/gated", "org/m1"], out, retry=True, rate=2)
    assert (ahead.done, ahead.failed, ahead.left) == (0, 1, 2)
    assert ahead.seconds == 1
    retried = _build(["bad/gated", "org/m1"], out, retry=True)
    assert (retried.done, retried.failed, retried.kept) == (2, 0, 0)
    found = _by_model(out)
    assert list(found) == ["bad/gated", "org/m1", "org/m0"]
    assert {row["status"] for rows in found.values() for row in rows} == {"done"}


def test_a_model_is_mapped_at_each_revision_that_is_listed(hub, tmp_path):
    out = tmp_path / "a.parquet"
    commit = commit_of("org/m0")
    models = ["org/m0@v1", "org/m0", f"org/m0@{commit}", "org/m0@v9", "org/m0@v1"]
    built = _build(models, out)
    assert (built.total, built.done, built.failed) == (4, 3, 1)
    rows = _table(out)
    assert len(rows) == 3 * rows[0]["hidden_size"] + 1
    assert {(row["asked"], row["status"], row["revision"]) for row in rows} == {
        ("v1", "done", commit),
        (None, "done", commit),
        (commit, "done", commit),
        ("v9", "failed", None),
    }


def test_a_model_whose_layers_end_in_large_weights_is_not_fetched(hub, tmp_path):
    out = tmp_path / "a.parquet"
    models = [f"org/m{n}" for n in range(4)]
    _build(models, out, max_bytes=3_000)
    rows = _by_model(out)
    assert [rows[model][0]["status"] for model in models] == ["done", "done", "failed", "failed"]
    assert "dense weights" in rows["org/m2"][0]["error"]
    assert rows["org/m2"][0]["bytes_read"] < 10_000


def test_no_more_models_start_in_a_second_than_the_rate(hub, tmp_path):
    models = [f"org/m{n}" for n in range(12)]
    build_atlas(models, tmp_path / "a.parquet", engine=in_process, rate=10)
    starts = [request.at for request in hub.requests if request.path.startswith("/api/")]
    assert starts[-1] - starts[0] >= 1.0
    queue = JobQueue([Target("a"), Target("b"), Target("c")], rate=2.0)
    taken = [queue.take() for _ in range(3)]
    assert [target.key for target, _ in taken] == ["a", "b", "c"]
    assert [delay for _, delay in taken] == pytest.approx([0.0, 0.5, 1.0], abs=0.1)
    assert queue.take() is None


def test_what_is_no_atlas_or_another_s_is_refused_and_left_alone(hub, tmp_path, monkeypatch):
    out, rows = tmp_path / "a.parquet", tmp_path / "a.parquet.rows.jsonl"
    out.write_text("mine")
    with pytest.raises(OutputError, match="not an atlas"):
        build_atlas(["org/m0"], out)
    assert out.read_text() == "mine"
    out.unlink()
    for somebody in ("mine too", '{"model": "no end of line"}', '{"id": 1}\n'):
        rows.write_text(somebody)
        for act in (build_atlas, preview_atlas):
            with pytest.raises(OutputError, match=r"rows\.jsonl:1: is not a row of an atlas"):
                act(["org/m0"], out)
        assert rows.read_text() == somebody
    rows.write_text('{"atlas":1,"si')  # as a kill in the middle of the first write leaves it
    build_atlas(["org/m0"], out, engine=in_process)
    with pytest.raises(OutputError, match=r"begun with `sigma` 3\.0 `min_layers` 0\.5"):
        build_atlas(["org/m0"], out, sigma=2.0)
    content = rows.read_bytes()
    rows.write_bytes(content + b"{}\n")
    with pytest.raises(OutputError, match=r"rows\.jsonl:3: is not a row of an atlas"):
        build_atlas(["org/m0"], out)
    rows.write_bytes(content)
    with rows.open("ab") as other:
        import fcntl

        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(OutputError, match="another run is writing there"):
            build_atlas(["org/m0"], out)
    hub.requests.clear()
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(OutputError, match=r"pip install 'norm-surgeon\[study\]'"):
        build_atlas(["org/m0"], tmp_path / "b.parquet")
    assert hub.requests == []


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"rate": 0}, "`rate` 0"),
        ({"sigma": -1}, "`sigma` -1"),
        ({"min_layers": 1.5}, "`min_layers` 1.5"),
        ({"min_layers": 0}, "`min_layers` 0"),
        ({"min_layers": math.inf}, "`min_layers` inf"),
        ({"max_bytes": 0}, "`max_bytes`: give a positive number"),
    ],
)
def test_a_number_that_makes_no_sense_is_refused(tmp_path, options, complaint):
    with pytest.raises(SelectionError, match=complaint):
        build_atlas(["org/m0"], tmp_path / "a.parquet", **options)
    assert list(tmp_path.iterdir()) == []


def test_without_a_network_by_choice_nothing_is_begun(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubUnavailableError, match="HF_HUB_OFFLINE is set"):
        build_atlas(["org/m0"], tmp_path / "a.parquet")
    assert not (tmp_path / "a.parquet.rows.jsonl").exists()


def test_a_list_has_comments_revisions_a_byte_order_mark_and_each_model_once(tmp_path):
    path = tmp_path / "models.txt"
    path.write_bytes(b"\xef\xbb\xbf# mine\norg/a\n\n  org/b@v1.0  # pinned\norg/a\norg/b\ngpt2\n")
    keys = [target.key for target in read_list(path)]
    assert keys == ["org/a", "org/b@v1.0", "org/b", "gpt2"]
    with pytest.raises(SelectionError, match="Is a directory; give a list"):
        read_list(tmp_path)


@pytest.mark.parametrize("line", ["a/b/c", "org/a b", "org/a@", "@v1", "org/a@x y", "-x"])
def test_a_line_that_is_no_hub_id_is_told_by_its_number(tmp_path, line):
    path = tmp_path / "models.txt"
    path.write_text(f"org/a\n\n{line}\n")
    with pytest.raises(SelectionError, match=r"models\.txt:3: .* is not a Hub id"):
        read_list(path)


def test_reasons_are_the_same_for_models_that_fail_alike():
    told = "{}/model.safetensors: the header claims {} bytes but the file has {}; fetch it again"
    errors = {"org/a": told.format("org/a", 123, 4), "org/bc": told.format("org/bc", 5, 66)}
    assert {reason_of(error, model) for model, error in errors.items()} == {
        "the header claims N bytes but the file has N"
    }
    revisions = [f"org/a: no revision '{name}' on http://127.0.0.1:80; give a" for name in "xy"]
    assert {reason_of(error, "org/a") for error in revisions} == {"no revision '…' on the Hub"}
    told = (
        "org/a: no such file or directory here, and no such model on http://127.0.0.1:80, or a "
        "private one; check the name"
    )
    assert reason_of(told, "org/a") == "no such model on the Hub, or a private one"
    told = "org/a/config.json: no such file; every checkpoint has one"
    assert reason_of(told, "org/a") == "config.json: no such file"
    told = "config.json: model_type '{}' is not an architecture that surgeon knows (it knows {})"
    kinds = {reason_of(told.format(kind, "bert, 'x'"), "org/a") for kind in ("weird", "odd")}
    assert kinds == {"config.json: model_type '…' is not an architecture that surgeon knows"}


def test_a_hub_that_is_away_stops_the_run_and_its_models_have_no_row(hub, tmp_path):
    out, models = tmp_path / "a.parquet", [f"org/m{n}" for n in range(20)]
    hub.failing, hub.status, hub.headers = "/api/models/org/m1", 503, {"Retry-After": "999"}
    with pytest.raises(HubUnavailableError, match=r"could not read 1 of the models, org/m1 last"):
        _build(models[:10], out)
    with pytest.raises(HubUnavailableError, match=r"5 of the models, org/m13 last .* no row of"):
        _build(models, out)
    with pytest.raises(HubUnavailableError, match="could not read 2 of the models"):
        _build(models[17:19], out)
    hub.status = None
    built = _build(models, out)
    assert (built.done, built.failed, built.kept) == (20, 0, 9)


@pytest.mark.parametrize(("name", "told"), [("a.csv", "the suffix .csv"), ("a", "no suffix")])
def test_a_table_of_another_kind_is_refused(tmp_path, name, told):
    for act in (build_atlas, preview_atlas):
        with pytest.raises(OutputError, match=f"has {told}; an atlas is Parquet"):
            act(["org/m0"], tmp_path / name)
    assert list(tmp_path.iterdir()) == []
