import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from artifacts import patch, run_python
from hub_server import commit_of

from surgeon import Recipe, make_plan, open_checkpoint
from surgeon.errors import CheckpointError, HubUnavailableError
from surgeon.model.directory import open_for_scan
from surgeon.model.download import download, find_cached
from surgeon.model.hub import HubId, hub_id, parse_hub_id
from surgeon.model.remote import open_remote

_KEPT = {
    "config.json", "model.safetensors", "README.md", "tokenizer.json", "vocab [draft].txt",
    "LICENSE", "spm.model", "modules.json", "additional_chat_templates/tool.jinja",
    "1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors",
    "3_Dense/pytorch_model.bin",
}  # fmt: skip
_NOT_NEEDED = {
    "pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json",
    "model.fp16.safetensors", "tf_model.h5", "flax_model.msgpack", "rust_model.ot",
    "model.Q4_K_M.gguf", "model.onnx", "whole-word-masking.tar.gz", "openvino_model.bin",
    "bert_model.ckpt.data-00000-of-00001", "optimizer.bin", "training_args.bin", "saved_model.pb",
    "64.tflite", "notes.txt", "runs/config.json", "onnx/model.onnx", "onnx/config.json",
    "openvino/openvino_model.bin", "coreml/text/model.mlmodel", "original/consolidated.00.pth",
    "checkpoint-500/optimizer.pt", "2_Dense/pytorch_model.bin",
}  # fmt: skip


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
def hub(full, tmp_path, serving, waited):
    pickle = _repository(tmp_path / "pickle", ["config.json", "pytorch_model.bin", "tf_model.h5"])
    gguf = _repository(tmp_path / "gguf", ["config.json", "model.Q4_K_M.gguf"])
    return serving({"org/full": full, "pickled": pickle, "org/gguf": gguf})


def _files(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (" google-bert/bert-base-uncased/ ", HubId("google-bert/bert-base-uncased")),
        ("org/model@refs/pr/4", HubId("org/model", "refs/pr/4")),
        ("https://huggingface.co/org/model", HubId("org/model")),
        ("https://huggingface.co/org/model/tree/step1000", HubId("org/model", "step1000")),
        ("huggingface.co/org/model/blob/main/config.json?x=1", HubId("org/model", "main")),
        ("https://huggingface.co/gpt2/", HubId("gpt2")),
        ("hf://org/model@v1", HubId("org/model", "v1")),
        ("https://huggingface.co/datasets/org/data", None),
        ("https://example.com/org/model", None),
        ("org/model@", None),
        *((text, None) for text in ("./model", "a/b/c", "~/models", "C:\\models", "a--b", "")),
    ],
)
def test_an_id_is_taken_as_people_paste_it(text, found):
    assert parse_hub_id(text) == found


def test_two_revisions_of_one_id_are_refused():
    assert hub_id("org/model@v1", "v1") == HubId("org/model", "v1")
    with pytest.raises(CheckpointError, match="`revision` v2: org/model@v1 names v1"):
        hub_id("org/model@v1", "v2")


def test_importing_the_module_does_not_import_huggingface_hub():
    modules = ("model.download", "model.remote", "evaluation.push")
    code = f"import sys, {', '.join(f'surgeon.{name}' for name in modules)}\n"
    code += "print('huggingface_hub' in sys.modules, 'httpx2' in sys.modules)"
    assert run_python("-c", code).stdout.split() == ["False", "False"]


def test_only_the_needed_files_are_fetched_and_the_commit_is_kept(hub, full):
    folder, _ = download("org/full")
    assert hub.fetched() == _files(folder) == _KEPT
    assert all((folder / f).read_bytes() == (full / f).read_bytes() for f in _KEPT)
    assert folder.name == commit_of("org/full")
    assert open_checkpoint(folder).tensors == open_checkpoint(full).tensors


def test_a_second_download_fetches_nothing(hub):
    first = download("org/full")
    hub.requests.clear()
    assert download("org/full") == first
    assert hub.fetched() == set()


def test_what_is_cached_is_known_without_asking_the_hub(hub):
    assert find_cached("org/full") is None
    assert hub.requests == []
    folder, _ = found = download("org/full")
    hub.requests.clear()
    assert find_cached("org/full") == find_cached("org/full", folder.name) == found
    assert find_cached("org/full", "v1") is None
    (folder / "model.safetensors").unlink()
    assert find_cached("org/full") is None
    assert hub.requests == []


def test_what_the_hub_no_longer_has_is_not_taken_from_the_cache(hub):
    download("org/full")
    del hub.repositories["org/full"]
    with pytest.raises(CheckpointError, match="no such model"):
        download("org/full")


def test_a_pickle_is_fetched_only_where_there_are_no_safetensors(hub):
    assert _files(download("pickled")[0]) == {"config.json", "pytorch_model.bin"}


@pytest.mark.parametrize("index", ["model.safetensors", "pytorch_model.bin"])
def test_shards_are_those_that_the_index_names(hub, tmp_path, index):
    stem, _, suffix = index.partition(".")
    shards = [f"{stem}-0000{n}-of-00002.{suffix}" for n in (1, 2)]
    other = f"{stem}-00001-of-00003.{suffix}"
    folder = _repository(tmp_path / "shards", ["config.json", *shards, other])
    weight_map = dict(zip("ab", shards, strict=True))
    (folder / f"{index}.index.json").write_text(json.dumps({"weight_map": weight_map}))
    hub.repositories["org/shards"] = folder
    folder, _ = download("org/shards")
    assert _files(folder) == {"config.json", f"{index}.index.json", *shards}
    (folder / shards[1]).unlink()
    hub.status = 503
    with pytest.raises(CheckpointError, match="try again later"):
        download("org/shards")  # a cache with one shard missing is no model


def test_big_weights_in_a_folder_are_another_model_and_stay_there(hub, full):
    path = full / "checkpoint-500" / "model.safetensors"
    with path.open("wb") as file:
        file.truncate(65 * 2**20)
    assert "checkpoint-500/model.safetensors" not in _files(download("org/full")[0])


def test_a_revision_is_had_by_name_and_by_commit(hub):
    folder, _ = by_name = download("org/full", "v1")
    assert folder.name == commit_of("org/full")
    assert download("org/full", folder.name) == by_name
    hub.status = 503
    assert download("org/full", "v1") == by_name


@pytest.mark.parametrize("xet", [True, False])
def test_progress_tells_the_bytes_and_nothing_else_does(hub, capfd, monkeypatch, xet):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", not xet)
    told = []
    folder, _ = download("org/full", progress=lambda *report: told.append(report))
    total = sum((folder / name).stat().st_size for name in _KEPT)
    assert told[-1] == ("downloading org/full", total, total)
    assert [report[1] for report in told] == sorted(report[1] for report in told)
    assert capfd.readouterr() == ("", "")


_OUTAGES = {
    "offline": "HF_HUB_OFFLINE is set; unset it",
    "refused": "check the connection",
    "503": "try again later",
    "stalled": "timed out.*check the connection",
}


@pytest.mark.parametrize("outage", _OUTAGES)
def test_without_the_hub_the_cache_serves_and_without_weights_in_it_the_error_says_so(
    hub, monkeypatch, capfd, outage
):
    with monkeypatch.context() as broken:
        _break(hub, broken, outage)
        _is_refused("org/full", complaint=_OUTAGES[outage], capfd=capfd)
    hub.status, hub.delay = None, 0.0
    folder, _ = snapshot = download("org/full")
    _break(hub, monkeypatch, outage)
    assert download("org/full") == snapshot
    (folder / "model.safetensors").unlink()
    _is_refused("org/full", complaint=_OUTAGES[outage], capfd=capfd)


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


@pytest.mark.parametrize("xet", [True, False])
def test_the_token_goes_to_the_hub_and_nowhere_else(hub, monkeypatch, xet):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", not xet)
    hub.token = "hf_right"
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    download("org/full")
    elsewhere = ("/xorb/", "/v1/", "/v2/") if xet else ("/cdn/",)
    to_others = {r.authorization for r in hub.requests if r.path.startswith(elsewhere)}
    to_hub = {r.authorization for r in hub.requests if not r.path.startswith(elsewhere)}
    assert to_hub == {"Bearer hf_right"}
    assert to_others <= {None, "Bearer xet_read"}
    assert to_others


def _has(**values):
    """Let the server be so."""
    return lambda hub, _: [setattr(hub, name, value) for name, value in values.items()]


def _token(owned, /, **values):
    """Let the server be so, and have a token."""
    return lambda hub, patch: [_has(**values)(hub, patch), patch.setenv("HF_TOKEN", owned)]


def _answers(status, **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return _has(status=status, headers=named)


def _endpoint(address):
    return lambda _, patch: patch.setenv("HF_ENDPOINT", address)


def _socks(_, patch):
    patch.delenv("NO_PROXY")
    patch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    patch.setitem(sys.modules, "socksio", None)


def _dead_proxy(_, patch):
    patch.delenv("NO_PROXY")
    patch.setenv("HTTP_PROXY", "http://127.0.0.1:9")


_GATED = r"accept its terms at http://127\.0\.0\.1:\d+/org/full, then set HF_TOKEN"
_EXPIRED = "the token .*laptop.* is expired.; run hf auth login again"
_ELSEWHERE = ["../../outside", "/etc/passwd", "a/../../b", "a\\..\\b", "a//b", "./a", "a\nb", ""]
_AS_A_TOKEN = [_has(), _token("hf_right", token="hf_right")]


@pytest.mark.parametrize(
    ("change", "model", "complaint"),
    [
        *((as_one, "org/missing", "no such model on http.*private") for as_one in _AS_A_TOKEN),
        *((as_one, "org/full@v9", "no revision 'v9'") for as_one in _AS_A_TOKEN),
        (_has(), "org/gguf", "no weights in it.*found model.Q4_K_M.gguf.*it was converted from"),
        (_has(gated={"org/full"}), "org/full", _GATED),
        (_token("hf_wrong", token="hf_right"), "org/full", "does not accept the token .Invalid"),
        (_token("hf_tökén"), "org/full", "token has a character that no token has.*HF_TOKEN"),
        (_token("hf_old", expired="hf_old"), "org/full", _EXPIRED),
        (_token("hf_old", expired="hf_old"), "org/missing", _EXPIRED),
        (_answers(500), "org/full", "server error 500 of http://127.*try again later"),
        (_answers(429), "org/full", "rate limit of http.*retry later, or set HF_TOKEN"),
        (_answers(429, RateLimit='"api";r=0;t=172'), "org/full", "retry in 172 s"),
        (_answers(403, X_Error_Message="no right"), "org/full", "forbids it .no right.; use a tok"),
        (_answers(403), "org/full", "not as the Hub does: a proxy or firewall"),
        (_answers(418), "org/full", "418"),
        (_has(fault="no hub"), "org/full", "does not answer like the Hub; check HF_ENDPOINT"),
        (_dead_proxy, "org/full", "check the connection, the proxy and HF_ENDPOINT"),
        (_socks, "org/full", "SOCKS proxy, which takes a package; pip install socksio"),
        *(
            (_endpoint(address), "org/full", "check the connection and HF_ENDPOINT")
            for address in ("nonsense", "http://[", "ftp://127.0.0.1")
        ),
        *((_has(listed={name: 1}), "org/full", "outside of the model") for name in _ELSEWHERE),
        *(
            (_has(commit=commit), "org/full", "its commit")
            for commit in ("../../outside", "main", "8b6ac46", "\n")
        ),
    ],
)
def test_what_cannot_be_had_or_trusted_is_one_line_and_nothing_is_fetched(
    hub, cache, monkeypatch, capfd, change, model, complaint
):
    change(hub, monkeypatch)
    _is_refused(*model.split("@"), complaint=complaint, capfd=capfd)
    assert hub.fetched() == set()
    assert not cache.exists() or not list(cache.rglob("*.safetensors"))


def test_an_expired_token_stops_a_run(hub, monkeypatch):
    _token("hf_old", expired="hf_old")(hub, monkeypatch)
    with pytest.raises(HubUnavailableError):
        open_remote("org/full")


@pytest.mark.parametrize("status", [429, 503])
def test_a_download_waits_as_it_is_asked_to(hub, waited, status):
    hub.status, hub.failures, hub.headers = status, 2, {"Retry-After": "7"}
    assert download("org/full")[0].name == commit_of("org/full")
    assert [int(seconds) for seconds in waited] == [7, 7]


def test_a_store_that_is_blocked_is_named_with_the_way_around_it(hub, monkeypatch, capfd):
    hub.status, hub.failing = 403, "/v2/"
    complaint = f"{hub.xet}, where the Hub keeps.*403.*HF_HUB_DISABLE_XET=1"
    _is_refused("org/full", complaint=complaint, capfd=capfd)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    hub.failing = "/cdn/"
    _is_refused("org/full", complaint=f"{hub.cdn} answered 403.*proxy or firewall", capfd=capfd)
    with pytest.raises(HubUnavailableError, match=f"{hub.cdn} answered 403"):
        open_remote("org/full")
    hub.status, hub.cdn_port = None, 9
    with pytest.raises(HubUnavailableError, match=r"http://localhost:9, where.*cannot be reached"):
        open_remote("org/full")


@pytest.mark.parametrize("xet", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_an_interrupted_download_says_how_to_go_on(hub, full, tmp_path, xet):
    with (full / "model.safetensors").open("ab") as file:
        file.truncate(2**26)
    hub.slow = 0.3
    code = "from surgeon.cli import main; main()"
    arguments = ["patch", "org/full", "--dims", "3", "--no-onnx", "-o", str(tmp_path / "out")]
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "HF_HUB_DISABLE_XET": str(int(not xet))},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        content = "/xorb/" if xet else "/cdn/"
        while process.poll() is None and not any(content in r.path for r in hub.requests):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)
    assert process.returncode == 130
    assert told.count("\n") == 1
    assert "org/full: the download was interrupted; run the same command again" in told


def test_a_renamed_repository_is_known_by_its_name_of_today(hub):
    hub.renamed = {"full": "org/full", "old/name": "org/full"}
    folder, _ = snapshot = download("full")
    assert folder.parent.parent.name == "models--org--full"
    assert open_remote("old/name").name == "org/full"
    assert find_cached("full") == snapshot
    hub.status = 503
    assert download("full") == snapshot
    (folder.parent.parent.parent / "models--other--full").mkdir()
    assert find_cached("full") is None


@pytest.mark.parametrize("gated", [True, False])
def test_a_mirror_that_sends_us_to_the_hub_serves_gated_models_too(
    hub, full, serving, monkeypatch, gated
):
    hub.token, hub.admitted, hub.gated = "hf_right", True, {"org/full"} if gated else set()
    origin = ("http", "127.0.0.1", hub.port)
    monkeypatch.setattr("huggingface_hub.utils._http._HUB_ORIGINS", frozenset({origin}))
    mirror = serving({"org/full": full})
    mirror.token, mirror.mirror_of = "hf_right", hub.url
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    (file,) = open_remote("org/full").files
    file.prefetch(file.tensors)
    assert open_checkpoint("org/full").tensors.keys() == file.tensors.keys()
    assert not [r for r in hub.requests if r.authorization and r.path.startswith("/cdn/")]


def test_content_that_all_repositories_share_is_in_the_artifact(hub, full, cache, tmp_path):
    hub.large = ("tokenizer.json", "spm.model")
    checkpoint = open_checkpoint("org/full")
    shared = (checkpoint.directory / "tokenizer.json").resolve()
    assert cache / "blobs" in shared.parents
    record = patch(checkpoint, tmp_path / "out", dims=(3,))
    assert record.left_out == ()
    beside = _KEPT - {"README.md", "model.safetensors"}
    assert beside <= _files(tmp_path / "out")
    assert all((tmp_path / "out" / f).read_bytes() == (full / f).read_bytes() for f in beside)


@pytest.fixture
def converted(hub, full, tmp_path):
    """A pickle on main, and a pull request that adds the same weights as safetensors."""
    main = shutil.copytree(full, tmp_path / "main")
    (main / "model.safetensors").unlink()
    request = shutil.copytree(full, tmp_path / "request")
    hub.repositories["org/pickle"] = main
    hub.branches["org/pickle"] = {"refs/pr/3": request}
    return request


@pytest.mark.parametrize("discussions", [True, False])
def test_the_hubs_own_conversion_is_taken_in_place_of_a_pickle(hub, converted, discussions):
    hub.discussions = discussions
    (converted / "README.md").write_bytes(b"says that it was converted")
    folder, conversion = download("org/pickle")
    assert (conversion, folder.name) == ("refs/pr/3", commit_of("org/pickle", "refs/pr/3"))
    assert (folder / "model.safetensors").is_file()
    assert not (folder / "pytorch_model.bin").exists()
    remote = open_remote("org/pickle")
    assert (remote.conversion, remote.revision) == (conversion, folder.name)
    plan = make_plan(open_checkpoint("org/pickle"), Recipe(dims=(3,)))
    assert plan.notes == ("weights of refs/pr/3, the conversion of its pickle",)
    assert find_cached("org/pickle", "main") is None
    assert download("org/pickle", "refs/pr/3") == (folder, None)
    hub.status = 503
    assert download("org/pickle") == (folder, conversion)
    # Whatever was pushed to the request since: the Hub vouched for this commit.
    (folder.parent.parent / "refs/refs/pr/3").write_text("0" * 40)
    cached = open_for_scan("org/pickle")
    assert (cached.directory, cached.conversion) == (folder, conversion)
    hub.status = None
    assert download("org/pickle", "main")[0].name == commit_of("org/pickle")


def test_offline_a_pull_request_that_was_asked_for_is_not_taken_for_the_model(hub, converted):
    download("org/pickle", "refs/pr/3")
    assert find_cached("org/pickle") is None


@pytest.mark.parametrize("case", ["somebody's", "another tokenizer", "another pickle", "none"])
def test_a_pull_request_that_changes_something_is_no_conversion(hub, converted, case):
    if case == "somebody's":
        branches = hub.branches["org/pickle"]
        branches["refs/pr/104"] = branches.pop("refs/pr/3")
    elif case == "none":
        (converted / "model.safetensors").unlink()
    else:
        name = "tokenizer.json" if case == "another tokenizer" else "pytorch_model.bin"
        (converted / name).write_bytes(b"changed")
    folder, conversion = download("org/pickle")
    assert (conversion, folder.name) == (None, commit_of("org/pickle"))
    assert (folder / "pytorch_model.bin").is_file()


@pytest.mark.parametrize(
    ("names", "advice"),
    [
        (["adapter_config.json", "adapter_model.safetensors"], "PEFT adapter.*merge it"),
        (["model.fp16.safetensors"], "found model.fp16.safetensors: download it .hf download"),
        (["0_Transformer/pytorch_model.bin"], "folder 0_T.*: download it .hf .*give DIR/0_Transf"),
    ],
)
def test_what_is_there_in_place_of_weights_is_told_as_of_a_folder(
    hub, tmp_path, capfd, names, advice
):
    hub.repositories["org/x"] = _repository(tmp_path / "x", ["config.json", *names])
    _is_refused("org/x", complaint=advice, capfd=capfd)


@pytest.mark.parametrize("shard", ["../../x.safetensors", "elsewhere.safetensors"])
def test_an_index_that_names_other_files_is_refused(hub, full, capfd, shard):
    (full / "model.safetensors").unlink()
    (full / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    _is_refused("org/full", complaint=re.escape(shard), capfd=capfd)


def _is_refused(model, revision=None, *, complaint, capfd):
    with pytest.raises(CheckpointError, match=complaint) as caught:
        download(model, revision)
    assert "\n" not in str(caught.value)
    assert model in str(caught.value)
    assert capfd.readouterr() == ("", "")


_SCRIPT = """
import sys
from surgeon.model.download import download
from surgeon.errors import CheckpointError
try:
    folder, _ = download(sys.argv[1])
except CheckpointError as error:
    sys.exit(str(error))
print(folder, folder.name)
"""


def test_an_address_set_to_nothing_is_the_default():
    code = "from surgeon.model.hub_errors import endpoint; print(endpoint())"
    done = run_python("-c", code, env={**os.environ, "HF_ENDPOINT": ""})
    assert done.stdout == "https://huggingface.co\n"


def test_in_a_process_of_its_own_the_environment_rules(hub, cache, monkeypatch):
    def run(model, **environment):
        kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
        named = {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_TELEMETRY": "1", **environment}
        return run_python("-c", _SCRIPT, model, check=False, env={**kept, **named})

    hub.token = "hf_right"
    online = run("org/full", HF_HOME=str(cache), HF_TOKEN="hf_right")
    path, commit = online.stdout.split()
    assert path.startswith(str(cache))
    assert commit == commit_of("org/full")
    assert {r.authorization for r in hub.requests} <= {"Bearer hf_right", "Bearer xet_read", None}
    asked = len(hub.requests)
    offline = run("org/full", HF_HOME=str(cache), HF_HUB_OFFLINE="1")
    assert offline.stdout == online.stdout
    without = run("org/full", HF_HOME=str(cache / "empty"), HF_HUB_OFFLINE="1")
    assert without.returncode == 1
    assert without.stderr.count("\n") == 1
    assert "HF_HUB_OFFLINE" in without.stderr
    assert len(hub.requests) == asked
