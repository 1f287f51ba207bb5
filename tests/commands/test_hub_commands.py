"""The commands on models of the Hub, against a local server that speaks its routes."""

import json
import shutil

import pytest
import tokenizers
import transformers
from artifacts import files_of, make_pickle
from families import FAMILIES
from heads import HEADS
from hub_server import commit_of

from surgeon import read_record

_ID = "org/tiny-bert"
_PATCH = ("patch", _ID, "--dims", "3,9", "--no-onnx")


@pytest.fixture
def hub(tiny, tmp_path, serving):
    repository = shutil.copytree(tiny("bert"), tmp_path / "repository")
    (repository / "README.md").write_text("---\nlicense: mit\n---\n# Tiny\n")
    (repository / "tf_model.h5").write_bytes(b"the same in another format")
    return serving({_ID: repository})


def test_patch_takes_a_hub_id_and_records_the_commit(hub, tiny, tmp_path, done):
    out = tmp_path / "out"
    done(*_PATCH, "-o", out)
    record = read_record(out)
    assert record.model == _ID
    assert record.revision == commit_of(_ID)
    card = (out / "README.md").read_text()
    assert f"base_model: {_ID}\n" in card
    assert "license: mit\n" in card
    assert not (out / "tf_model.h5").exists()
    assert "tf_model.h5" not in hub.fetched()
    done("restore", out, "-o", tmp_path / "back")
    assert files_of(tmp_path / "back").items() >= files_of(tiny("bert")).items()


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
    hub, tmp_path, monkeypatch, done, family, form
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
    done("patch", "org/made", "--dims", "3", "--no-onnx", "-o", out)
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


def test_scan_reads_a_model_that_is_not_cached_by_ranges_alone(hub, tiny, tmp_path, done, json_of):
    captured = done("scan", _ID, "--json")
    assert "by range requests" in " ".join(captured.err.split())
    ranges = [r for r in hub.requests if r.file == "model.safetensors"]
    assert ranges
    assert all(request.range or request.method == "HEAD" for request in ranges)
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
    local = json_of("scan", tiny("bert"))
    measure = {**local["measure"], "command": f"surgeon scan {_ID} --method ablation"}
    assert json.loads(captured.out) == {**local, "model": _ID, "measure": measure}


def test_a_picture_of_a_model_that_is_not_cached_fetches_nothing_twice(hub, tmp_path, done):
    done("scan", _ID)
    plain = len(hub.requests)
    hub.requests.clear()
    done("scan", _ID, "--plot", tmp_path / "scan.png")
    assert len(hub.requests) == plain
    assert (tmp_path / "scan.png").exists()


def test_scan_takes_the_cache_if_the_model_is_there(hub, tmp_path, done):
    done(*_PATCH, "-o", tmp_path / "out")
    hub.requests.clear()
    assert "range requests" not in done("scan", _ID).err
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
    hub, tmp_path, done, refused, monkeypatch
):
    out = tmp_path / "out"
    done(*_PATCH, "-o", out)
    refused("push", out, "org/patched", says="--unverified")
    assert hub.uploaded == {}
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    hub.token = "hf_test"
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert "org/patched" in done("push", out, "org/patched", "--unverified").out
    assert hub.uploaded
