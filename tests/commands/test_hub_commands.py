"""The commands on models of the Hub, against a local server that speaks its routes."""

import json
import shutil

import pytest
import tokenizers
import transformers
from artifacts import make_pickle
from families import FAMILIES
from heads import HEADS
from hub_server import commit_of, connect, serve

from surgeon import read_record
from surgeon.cli import run

_ID = "org/tiny-bert"


@pytest.fixture
def hub(tiny, tmp_path, monkeypatch):
    repository = shutil.copytree(tiny("bert"), tmp_path / "repository")
    (repository / "README.md").write_text("---\nlicense: mit\n---\n# Tiny\n")
    (repository / "tf_model.h5").write_bytes(b"the same in another format")
    with serve({_ID: repository}) as server:
        connect(monkeypatch, server.url, tmp_path / "cache")
        yield server


def test_patch_takes_a_hub_id_and_records_the_commit(hub, tiny, tmp_path):
    out = tmp_path / "out"
    assert run(["patch", _ID, "--dims", "3,9", "--no-onnx", "-o", str(out)]) == 0
    record = read_record(out)
    assert record.model == _ID
    assert record.revision == commit_of(_ID)
    card = (out / "README.md").read_text()
    assert f"base_model: {_ID}\n" in card
    assert "license: mit\n" in card
    assert not (out / "tf_model.h5").exists()
    assert "tf_model.h5" not in hub.fetched()
    assert run(["restore", str(out), "-o", str(tmp_path / "back")]) == 0
    for path in tiny("bert").iterdir():
        assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes()


def _tokenizer(folder):
    """A tokenizer of whole words, in a file that the Hub keeps apart, as those of E5 and LaBSE."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "a": 1}, "[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[UNK]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def _sentence_transformer(folder, width):
    """What sentence-transformers reads beside: modules, one of them with weights of its own."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Dense, Pooling, Transformer

    modules = [Transformer(str(folder)), Pooling(width), Dense(width, 4)]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder))


@pytest.mark.parametrize(
    ("family", "form"),
    [
        ("bert", "safetensors"),
        ("roberta", "safetensors"),
        ("xlm-roberta", "safetensors"),
        ("electra", "legacy pickle"),
        ("electra, discriminator", "legacy pickle"),
        ("xlnet", "legacy pickle"),
        ("bart", "safetensors"),
        ("bart", "legacy pickle"),
        ("gpt2", "safetensors"),
        ("distilbert", "safetensors"),
        ("gpt_neox", "pickle"),
        ("mpnet, with modules", "safetensors"),
        ("xlm-roberta, with modules", "safetensors"),
    ],
)
def test_the_artifact_of_a_model_off_the_hub_loads_with_the_network_off(
    hub, tmp_path, monkeypatch, family, form
):
    folder, name = tmp_path / "made", family.removesuffix(", with modules")
    made = {**FAMILIES, **HEADS}[name]
    model_class, config = made.model, made.config
    model_class(config).save_pretrained(folder)
    _tokenizer(folder)
    if "modules" in family:
        _sentence_transformer(folder, config.hidden_size)
        model_class = transformers.AutoModel  # what it saves has no head
    if form != "safetensors":
        make_pickle(folder, legacy=form == "legacy pickle")
    hub.repositories["org/made"] = folder
    hub.large = ("tokenizer.json",)
    out = str(tmp_path / "out")
    assert run(["patch", "org/made", "--dims", "3", "--no-onnx", "-o", out]) == 0
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert transformers.AutoTokenizer.from_pretrained(out)("a")["input_ids"] == [1]
    _, told = model_class.from_pretrained(out, output_loading_info=True)
    assert not told["missing_keys"]
    if "modules" in family:
        from sentence_transformers import SentenceTransformer

        loaded = SentenceTransformer(out, device="cpu")
        assert loaded.encode("a").shape == (4,)
    assert hub.requests == []


def test_a_patch_never_writes_through_to_the_cache(hub, tmp_path):
    def cached():
        files = (p for p in (tmp_path / "cache").rglob("*") if p.is_file())
        return {p: p.read_bytes() for p in files if "blobs" in p.parts or "snapshots" in p.parts}

    for number in range(2):
        arguments = ["patch", _ID, "--dims", "3", "--no-onnx", "-o", str(tmp_path / f"{number}")]
        assert run(arguments) == 0
        if number == 0:
            before = cached()
    assert before
    assert cached() == before


def test_scan_reads_a_model_that_is_not_cached_by_ranges_alone(hub, tiny, tmp_path, capsys):
    assert run(["scan", _ID, "--json"]) == 0
    captured = capsys.readouterr()
    assert "by range requests" in " ".join(captured.err.split())
    ranges = [r for r in hub.requests if r.file == "model.safetensors"]
    assert ranges
    assert all(request.range or request.method == "HEAD" for request in ranges)
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
    assert run(["scan", str(tiny("bert")), "--json"]) == 0
    local = json.loads(capsys.readouterr().out)
    measure = {**local["measure"], "command": f"surgeon scan {_ID} --method ablation"}
    assert json.loads(captured.out) == {**local, "model": _ID, "measure": measure}


def test_a_picture_of_a_model_that_is_not_cached_fetches_nothing_twice(hub, tmp_path):
    assert run(["scan", _ID]) == 0
    plain = len(hub.requests)
    hub.requests.clear()
    assert run(["scan", _ID, "--plot", str(tmp_path / "scan.png")]) == 0
    assert len(hub.requests) == plain
    assert (tmp_path / "scan.png").exists()


def test_scan_takes_the_cache_if_the_model_is_there(hub, tmp_path, capsys):
    assert run(["patch", _ID, "--dims", "3", "--no-onnx", "-o", str(tmp_path / "out")]) == 0
    hub.requests.clear()
    assert run(["scan", _ID]) == 0
    assert "range requests" not in capsys.readouterr().err
    assert hub.requests == []


@pytest.mark.parametrize(
    ("model", "options", "complaint"),
    [
        ("org/nothing", [], "no such model"),
        (_ID, ["--revision", "no-such-branch"], "no revision 'no-such-branch'"),
        ("org/gated", [], "accept its terms"),
        ("not/a/hub/id", [], "no Hub id either"),
        ("PATH", ["--revision", "main"], "--revision main"),
    ],
)
def test_a_hub_error_is_one_line_and_exit_code_2(hub, tmp_path, refused, model, options, complaint):
    hub.repositories["org/gated"] = hub.repositories[_ID]
    hub.gated.add("org/gated")
    model = model.replace("PATH", str(hub.repositories[_ID]))
    refused("scan", model, *options, says=complaint)
    options += ["--dims", "3", "--no-onnx", "-o", tmp_path / "out"]
    refused("patch", model, *options, says=complaint)
    assert not (tmp_path / "out").exists()


def test_push_refuses_what_was_never_evaluated_unless_told(
    hub, tmp_path, capsys, refused, monkeypatch
):
    out = str(tmp_path / "out")
    assert run(["patch", _ID, "--dims", "3", "--no-onnx", "-o", out]) == 0
    refused("push", out, "org/patched", says="--unverified")
    assert hub.uploaded == {}
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    hub.token = "hf_test"
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert run(["push", out, "org/patched", "--unverified"]) == 0
    assert hub.uploaded
    assert "org/patched" in capsys.readouterr().out
