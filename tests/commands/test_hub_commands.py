"""The commands on models of the Hub, against a local server that speaks its routes."""

import json
import shutil

import pytest
import sentence_transformers
import tokenizers
import torch
import transformers
from conftest import TINY_FAMILIES
from families import FAMILIES
from hub_server import commit_of, connect, serve
from safetensors.torch import load_file

from surgeon import read_record
from surgeon.cli import run

_ID = "org/tiny-bert"
_MADE = {name: (one.model, one.config) for name, one in FAMILIES.items()} | TINY_FAMILIES


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
    from sentence_transformers.models import Dense, Pooling, Transformer

    modules = [Transformer(str(folder)), Pooling(width), Dense(width, 4)]
    sentence_transformers.SentenceTransformer(modules=modules, device="cpu").save(str(folder))


@pytest.mark.parametrize(
    ("family", "form"),
    [
        ("bert", "safetensors"),
        ("roberta", "safetensors"),
        ("xlm-roberta", "safetensors"),
        ("electra", "legacy pickle"),
        ("electra-discriminator", "legacy pickle"),
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
    folder, name = tmp_path / "made", family.partition(",")[0]
    model_class, config = _MADE[name]
    model_class(config).save_pretrained(folder)
    _tokenizer(folder)
    if "modules" in family:
        _sentence_transformer(folder, config.hidden_size)
        model_class = transformers.AutoModel  # what it saves has no head
    if form != "safetensors":
        state = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        path = folder / "pytorch_model.bin"
        torch.save(state, path, _use_new_zipfile_serialization=form == "pickle")
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
        loaded = sentence_transformers.SentenceTransformer(out, device="cpu")
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
    remote = json.loads(captured.out)
    assert "by range requests" in " ".join(captured.err.split())
    ranges = [r for r in hub.requests if r.file == "model.safetensors"]
    assert ranges
    assert all(request.range or request.method == "HEAD" for request in ranges)
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
    assert run(["scan", str(tiny("bert")), "--json"]) == 0
    local = json.loads(capsys.readouterr().out)
    assert remote.pop("model") == _ID
    local.pop("model")
    assert remote == local


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


@pytest.mark.parametrize("command", ["scan", "patch"])
@pytest.mark.parametrize(
    ("model", "revision", "complaint"),
    [
        ("org/nothing", None, "no such model"),
        (_ID, "no-such-branch", "no revision 'no-such-branch'"),
        ("org/gated", None, "accept its terms"),
        ("not/a/hub/id", None, "no Hub id either"),
    ],
)
def test_a_hub_error_is_one_line_and_exit_code_2(
    hub, tmp_path, capsys, command, model, revision, complaint
):
    hub.repositories["org/gated"] = hub.repositories[_ID]
    hub.gated.add("org/gated")
    options = ["--revision", revision] if revision else []
    if command == "patch":
        options += ["--dims", "3", "--no-onnx", "-o", str(tmp_path / "out")]
    assert run([command, model, *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert complaint in captured.err
    assert not (tmp_path / "out").exists()


def test_a_revision_of_a_path_is_refused(tiny, capsys):
    assert run(["scan", str(tiny("bert")), "--revision", "main"]) == 2
    assert "--revision main" in capsys.readouterr().err


def test_push_refuses_what_was_never_evaluated_unless_told(hub, tmp_path, capsys, monkeypatch):
    out = str(tmp_path / "out")
    assert run(["patch", _ID, "--dims", "3", "--no-onnx", "-o", out]) == 0
    assert run(["push", out, "org/patched"]) == 2
    assert "--unverified" in capsys.readouterr().err
    assert hub.uploaded == {}
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    hub.token = "hf_test"
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert run(["push", out, "org/patched", "--unverified"]) == 0
    assert hub.uploaded
    assert "org/patched" in capsys.readouterr().out


def test_an_unknown_architecture_is_patched_where_a_pattern_says(tiny, tmp_path, capsys):
    source = shutil.copytree(tiny("bert"), tmp_path / "source")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "model_type": "mystery"}))
    capsys.readouterr()  # what saving the tiny model printed
    assert run(["scan", str(source)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--sites-pattern" in error
    pattern = r"bert\.encoder\.layer\.\d+\.output\.LayerNorm"
    assert pattern in error
    out = str(tmp_path / "out")
    arguments = ["patch", str(source), "--dims", "3", "--sites-pattern", pattern, "--no-onnx"]
    assert run([*arguments, "-o", out]) == 0
    tensors = {edit.tensor for edit in read_record(tmp_path / "out").edits}
    layers = [f"bert.encoder.layer.{i}.output.LayerNorm" for i in range(3)]
    assert tensors == {f"{layer}.{leaf}" for layer in layers for leaf in ("weight", "bias")}
    assert run(["verify", out]) == 0
    assert run(["restore", out, "-o", str(tmp_path / "back")]) == 0
