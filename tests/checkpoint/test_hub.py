import hashlib
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import transformers
from hub_server import commit_of, connect, serve

from surgeon import Recipe, make_plan, open_checkpoint, operate
from surgeon.checkpoint.hub import download, find_cached, looks_like_hub_id
from surgeon.errors import CheckpointError

_KEPT = {
    "config.json",
    "model.safetensors",
    "README.md",
    "tokenizer.json",
    "notes [draft].txt",
    "modules.json",
    "1_Pooling/config.json",
    "2_Dense/config.json",
    "2_Dense/model.safetensors",
    "3_Dense/pytorch_model.bin",
}
_NOT_NEEDED = {
    "pytorch_model.bin",
    "pytorch_model-00001-of-00002.bin",
    "pytorch_model.bin.index.json",
    "model.fp16.safetensors",
    "tf_model.h5",
    "flax_model.msgpack",
    "rust_model.ot",
    "model.Q4_K_M.gguf",
    "model.onnx",
    "onnx/model.onnx",
    "onnx/config.json",
    "openvino/openvino_model.bin",
    "coreml/text/model.mlmodel",
    "original/consolidated.00.pth",
    "checkpoint-500/optimizer.pt",
    "2_Dense/pytorch_model.bin",
}


def _repository(folder, files):
    for name in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(b"{}" + name.encode())
    return folder


@pytest.fixture
def full(tmp_path, tiny):
    """A repository with the same weights in every format that the Hub knows."""
    shutil.copytree(tiny("bert"), tmp_path / "full")
    (tmp_path / "full" / "generation_config.json").unlink(missing_ok=True)
    return _repository(tmp_path / "full", _KEPT | _NOT_NEEDED)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def hub(full, cache, tmp_path, monkeypatch):
    pickle = _repository(tmp_path / "pickle", ["config.json", "pytorch_model.bin", "tf_model.h5"])
    gguf = _repository(tmp_path / "gguf", ["config.json", "model.Q4_K_M.gguf"])
    repositories = {"org/full": full, "pickled": pickle, "org/gguf": gguf}
    with serve(repositories) as server:
        connect(monkeypatch, server.url, cache)
        yield server


def _files(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("text", "is_id"),
    [
        ("bert-base-uncased", True),
        ("google-bert/bert-base-uncased", True),
        ("sentence-transformers/all-MiniLM-L6-v2", True),
        ("a/b/c", False),
        ("/abs/path", False),
        ("./here", False),
        ("../up", False),
        ("~/models", False),
        ("C:\\models", False),
        ("a--b", False),
        ("a..b", False),
        ("model/", False),
        ("modèle", False),
        ("", False),
        ("a" * 97, False),
    ],
)
def test_a_hub_id_is_a_name_or_an_organization_and_a_name(text, is_id):
    assert looks_like_hub_id(text) is is_id


def test_importing_the_module_does_not_import_huggingface_hub():
    code = "import sys, surgeon.checkpoint.hub, surgeon.checkpoint.remote, surgeon.surgery.push\n"
    code += "print('huggingface_hub' in sys.modules, 'httpx2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_only_the_needed_files_are_fetched_and_the_commit_is_kept(hub, full):
    snapshot = download("org/full")
    assert hub.fetched() == _files(snapshot.path) == _KEPT
    assert all((snapshot.path / f).read_bytes() == (full / f).read_bytes() for f in _KEPT)
    assert snapshot.model_id == "org/full"
    assert snapshot.revision == commit_of("org/full") == snapshot.path.name
    assert open_checkpoint(snapshot.path).tensors == open_checkpoint(full).tensors


def test_a_second_download_fetches_nothing(hub):
    first = download("org/full")
    hub.requests.clear()
    assert download("org/full") == first
    assert hub.fetched() == set()


def test_what_is_cached_is_known_without_asking_the_hub(hub):
    assert find_cached("org/full") is None
    assert hub.requests == []
    snapshot = download("org/full")
    hub.requests.clear()
    assert find_cached("org/full") == find_cached("org/full", snapshot.revision) == snapshot
    assert find_cached("org/full", "v1") is None
    (snapshot.path / "model.safetensors").unlink()
    assert find_cached("org/full") is None
    assert hub.requests == []


def test_a_pickle_is_fetched_only_where_there_are_no_safetensors(hub):
    assert _files(download("pickled").path) == {"config.json", "pytorch_model.bin"}


@pytest.mark.parametrize("index", ["model.safetensors", "pytorch_model.bin"])
def test_shards_are_those_that_the_index_names(hub, tmp_path, index):
    stem, _, suffix = index.partition(".")
    shards = [f"{stem}-0000{n}-of-00002.{suffix}" for n in (1, 2)]
    other = f"{stem}-00001-of-00003.{suffix}"
    folder = _repository(tmp_path / "shards", ["config.json", *shards, other])
    weight_map = dict(zip("ab", shards, strict=True))
    (folder / f"{index}.index.json").write_text(json.dumps({"weight_map": weight_map}))
    hub.repositories["org/shards"] = folder
    snapshot = download("org/shards")
    assert _files(snapshot.path) == {"config.json", f"{index}.index.json", *shards}
    (snapshot.path / shards[1]).unlink()
    hub.status = 503
    with pytest.raises(CheckpointError, match="try again later"):
        download("org/shards")  # a cache with one shard missing is no model


def test_big_weights_in_a_folder_are_another_model_and_stay_there(hub, full):
    path = full / "checkpoint-500" / "model.safetensors"
    with path.open("wb") as file:
        file.truncate(65 * 2**20)
    assert "checkpoint-500/model.safetensors" not in _files(download("org/full").path)


def test_a_revision_is_had_by_name_and_by_commit(hub):
    by_name = download("org/full", "v1")
    assert by_name.revision == commit_of("org/full")
    assert download("org/full", by_name.revision) == by_name
    hub.status = 503
    assert download("org/full", "v1") == by_name


def test_progress_tells_the_bytes_and_nothing_else_does(hub, capfd):
    told = []
    snapshot = download("org/full", progress=lambda *report: told.append(report))
    total = sum((snapshot.path / name).stat().st_size for name in _KEPT)
    assert told[-1] == ("downloading org/full", total, total)
    assert [report[1] for report in told] == sorted(report[1] for report in told)
    assert capfd.readouterr() == ("", "")


def test_patching_a_cached_model_never_changes_the_cache(hub, cache, tmp_path):
    snapshot = download("org/full")
    before = _hashes(cache)
    operate(
        make_plan(open_checkpoint(snapshot.path), Recipe(dims=(3,))), tmp_path / "out", onnx=False
    )
    assert _hashes(cache) == before
    patched = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert patched != (snapshot.path / "model.safetensors").read_bytes()


def _hashes(folder):
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("outage", ["offline", "refused", "503", "stalled"])
def test_without_the_hub_the_cache_serves(hub, monkeypatch, outage):
    snapshot = download("org/full")
    _break(hub, monkeypatch, outage)
    assert download("org/full") == snapshot


@pytest.mark.parametrize(
    ("outage", "remedy"),
    [
        ("offline", "HF_HUB_OFFLINE is set; unset it"),
        ("refused", "check the connection"),
        ("503", "try again later"),
        ("stalled", "timed out.*check the connection"),
    ],
)
@pytest.mark.parametrize("cached", ["nothing", "no weights"])
def test_without_the_hub_and_a_cached_model_the_error_says_so(
    hub, cache, monkeypatch, capfd, outage, remedy, cached
):
    if cached == "no weights":
        (download("org/full").path / "model.safetensors").unlink()
    _break(hub, monkeypatch, outage)
    _is_refused("org/full", remedy, capfd)


def _break(hub, monkeypatch, outage):
    if outage == "offline":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    elif outage == "refused":
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    elif outage == "stalled":
        hub.delay = 1.0
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
    else:
        hub.status = int(outage)


def test_the_token_goes_to_the_hub_and_not_to_its_cdn(hub, monkeypatch):
    hub.token = "hf_right"
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    download("org/full")
    to_cdn = [r.authorization for r in hub.requests if r.path.startswith("/cdn/")]
    to_hub = [r.authorization for r in hub.requests if not r.path.startswith("/cdn/")]
    assert set(to_cdn) == {None}
    assert set(to_hub) == {"Bearer hf_right"}


@pytest.mark.parametrize(
    ("model", "revision", "complaint"),
    [
        ("org/missing", None, "no such model on http.*private.*HF_TOKEN"),
        ("org/full", "v9", "no revision 'v9'"),
        ("org/gguf", None, "no weights in it.*found model.Q4_K_M.gguf"),
    ],
)
@pytest.mark.parametrize("token", [None, "hf_right"])
def test_what_is_not_there_is_one_line(hub, monkeypatch, capfd, model, revision, complaint, token):
    if token:
        hub.token = token
        monkeypatch.setenv("HF_TOKEN", token)
    _is_refused(model, complaint, capfd, revision)


def test_a_gated_model_is_one_line_with_the_address_of_its_terms(hub, capfd):
    hub.gated.add("org/full")
    _is_refused("org/full", f"accept its terms at {hub.url}/org/full, then set HF_TOKEN", capfd)


def test_a_wrong_token_is_one_line(hub, monkeypatch, capfd):
    hub.token = "hf_right"
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    _is_refused("org/full", "does not know the token", capfd)


@pytest.mark.parametrize(
    ("status", "remedy"),
    [(500, "try again later"), (429, "too many requests"), (403, "has the right"), (418, "418")],
)
def test_a_hub_that_refuses_is_one_line(hub, capfd, status, remedy):
    hub.status = status
    _is_refused("org/full", remedy, capfd)


def test_what_is_no_hub_is_one_line(hub, capfd):
    hub.fault = "no hub"
    _is_refused("org/full", "does not answer like the Hub; check HF_ENDPOINT", capfd)


@pytest.mark.parametrize("endpoint", ["nonsense", "http://[", "ftp://127.0.0.1"])
def test_a_wrong_endpoint_is_one_line(hub, monkeypatch, capfd, endpoint):
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    _is_refused("org/full", "check the connection and HF_ENDPOINT", capfd)


@pytest.mark.parametrize(
    "name", ["../../outside", "/etc/passwd", "a/../../b", "a\\..\\b", "a//b", "./a", "a\nb", ""]
)
def test_a_name_that_leaves_the_model_is_refused_before_anything_is_fetched(
    hub, cache, capfd, name
):
    hub.listed = {name: 1}
    _is_refused("org/full", "outside of the model", capfd)
    assert hub.fetched() == set()
    assert not cache.exists()


@pytest.mark.parametrize("commit", ["../../outside", "main", "8b6ac46", "\n"])
def test_a_commit_that_is_none_is_refused(hub, capfd, commit):
    hub.commit = commit
    _is_refused("org/full", "its commit", capfd)
    assert hub.fetched() == set()


@pytest.mark.parametrize("shard", ["../../x.safetensors", "elsewhere.safetensors"])
def test_an_index_that_names_other_files_is_refused(hub, full, capfd, shard):
    (full / "model.safetensors").unlink()
    (full / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    _is_refused("org/full", re.escape(shard), capfd)


def _is_refused(model, complaint, capfd, revision=None):
    with pytest.raises(CheckpointError, match=complaint) as caught:
        download(model, revision)
    assert "\n" not in str(caught.value)
    assert model in str(caught.value)
    assert capfd.readouterr() == ("", "")


_SCRIPT = """
import sys
from surgeon.checkpoint.hub import download
from surgeon.errors import CheckpointError
try:
    snapshot = download(sys.argv[1])
except CheckpointError as error:
    sys.exit(str(error))
print(snapshot.path, snapshot.revision)
"""


def test_in_a_process_of_its_own_the_environment_rules(hub, cache, monkeypatch):
    def run(model, **environment):
        kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
        return subprocess.run(
            [sys.executable, "-c", _SCRIPT, model],
            env={**kept, "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_TELEMETRY": "1", **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    hub.token = "hf_right"
    online = run("org/full", HF_HOME=str(cache), HF_TOKEN="hf_right")
    path, commit = online.stdout.split()
    assert path.startswith(str(cache))
    assert commit == commit_of("org/full")
    assert {r.authorization for r in hub.requests} == {"Bearer hf_right", None}
    asked = len(hub.requests)
    offline = run("org/full", HF_HOME=str(cache), HF_HUB_OFFLINE="1")
    assert offline.stdout == online.stdout
    without = run("org/full", HF_HOME=str(cache / "empty"), HF_HUB_OFFLINE="1")
    assert without.returncode == 1
    assert without.stderr.count("\n") == 1
    assert "HF_HUB_OFFLINE" in without.stderr
    assert len(hub.requests) == asked


def test_transformers_loads_the_snapshot(hub):
    snapshot = download("org/full")
    model = transformers.BertForMaskedLM.from_pretrained(snapshot.path)
    assert model.config.num_hidden_layers == 3
