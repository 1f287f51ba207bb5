import json
import shutil

import numpy as np
import onnxruntime
import pytest
import torch
import transformers
from artifacts import files_of, make_pickle
from families import save_family
from task_models import save_model

from surgeon import open_checkpoint
from surgeon.cli import run
from surgeon.onnx.weights import read_initializers

_LABELS = ["CONTRADICTION", "Neutral", "entailment"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny classifier with a card and a file of somebody's beside its weights."""
    folder = save_model("classification", tmp_path_factory.mktemp("models") / "model")
    (folder / "README.md").write_text("# A model")
    (folder / "notes.txt").write_text("mine")
    return folder


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    """That model as surgeon export lays it out."""
    output = tmp_path_factory.mktemp("exports") / "out"
    assert run(["export", str(model), "-o", str(output)]) == 0
    return output


def _facts(folder):
    return json.loads((folder / "surgeon" / "export.json").read_text())


def test_an_export_has_the_graph_its_weights_and_all_of_the_source_but_the_card(exported, model):
    source, found = files_of(model), files_of(exported)
    taken = source.keys() - {"README.md", "model.safetensors"}
    assert {"config.json", "tokenizer.json", "tokenizer_config.json", "notes.txt"} <= taken
    data = "onnx/model.onnx_data"
    assert found.keys() == taken | {"onnx/model.onnx", data, "surgeon/export.json"}
    assert found[data] == source["model.safetensors"]
    assert not (exported / data).samefile(model / "model.safetensors")
    assert all(found[name] == source[name] for name in taken)


def test_the_exported_graph_is_the_model_as_transformers_loads_it(exported, model):
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
    own = transformers.AutoModelForSequenceClassification.from_pretrained(model).eval()
    batch = tokenizer(["Nothing was removed.", "Nothing."], padding=True, return_tensors="np")
    with torch.no_grad():
        expected = own(**{n: torch.from_numpy(v) for n, v in batch.items()}).logits.numpy()
    graph = exported / "onnx" / "model.onnx"
    (got,) = onnxruntime.InferenceSession(graph).run(["logits"], dict(batch))
    np.testing.assert_allclose(got, expected, atol=1e-4)
    checkpoint = open_checkpoint(model)
    stored = read_initializers(graph, {site.gain for site in checkpoint.sites})
    assert stored
    assert all(np.array_equal(values, checkpoint.read(name)) for name, values in stored.items())


def test_the_facts_of_an_export_lie_beside_it(exported):
    facts = _facts(exported)
    assert (facts["architecture"], facts["onnx"]["task"]) == ("BERT", "classification")
    assert facts["onnx"]["inputs"] == ["input_ids", "attention_mask", "token_type_ids"]
    assert facts["onnx"]["parity"]["largest"] < 1e-4
    assert facts["onnx"]["tokenizer"]["file"] == "tokenizer.json"
    assert facts["onnx"]["labels"] == _LABELS
    sizes = {name: len(content) for name, content in files_of(exported).items()}
    del sizes["surgeon/export.json"]
    assert {name: file["size"] for name, file in facts["files"].items()} == sizes


def test_a_second_export_needs_force_and_json_is_its_facts(
    exported, model, tmp_path, json_of, refused
):
    out = shutil.copytree(exported, tmp_path / "out")
    refused("export", model, "-o", out, says="--force")
    document = json_of("export", model, "-o", out, "--force", "--dtype", "float16")
    assert document.pop("output") == str(out)
    assert document == _facts(out)
    assert document["onnx"]["dtype"] == "float16"
    assert "onnx/model.onnx_data" not in document["files"]
    full = _facts(exported)["files"]["onnx/model.onnx_data"]["size"]
    assert 0.4 * full < document["files"]["onnx/model.onnx"]["size"] < full
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_model_that_does_not_export_is_one_line_and_leaves_nothing(tiny, tmp_path, refused):
    save_family("vit", tmp_path / "model")
    (tmp_path / "w.safetensors").write_bytes((tiny("bert") / "model.safetensors").read_bytes())
    before, out = sorted(tmp_path.iterdir()), tmp_path / "new" / "out"
    line = refused("export", tmp_path / "model", "-o", out, says="run it in PyTorch instead")
    assert "model: ViTModel takes pixel_values, and only models that take text" in line
    alone = "w.safetensors: has no config.json beside it"
    refused("export", tmp_path / "w.safetensors", "-o", out, says=alone)
    assert sorted(tmp_path.iterdir()) == before


def test_a_pickle_is_exported_with_a_tokenizer_that_needs_no_transformers(model, tmp_path, done):
    source, out = shutil.copytree(model, tmp_path / "source"), tmp_path / "out"
    make_pickle(source)
    words = transformers.AutoTokenizer.from_pretrained(source).get_vocab()
    (source / "vocab.txt").write_text("\n".join(sorted(words, key=words.__getitem__)))
    (source / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    (source / "tokenizer.json").unlink()
    done("export", source, "-o", out)
    assert _facts(out)["onnx"]["tokenizer"]["file"] == "onnx/tokenizer.json"
    assert (out / "onnx" / "tokenizer.json").is_file()
    assert not any(name.endswith((".bin", ".safetensors")) for name in files_of(out))


def test_an_architecture_without_a_row_is_exported_by_a_pattern(tmp_path, refused, done):
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}
    config = transformers.BertGenerationConfig(**sizes, num_hidden_layers=1, vocab_size=40)
    transformers.BertGenerationEncoder(config).save_pretrained(tmp_path / "model")
    call = ["export", tmp_path / "model", "-o", tmp_path / "out"]
    refused(*call, says="--sites-pattern")
    pattern = r"encoder\.layer\.\d+\.output\.LayerNorm"
    done(*call, "--sites-pattern", pattern)
    assert _facts(tmp_path / "out")["onnx"]["vectors"] == [
        f"encoder.layer.0.output.LayerNorm.{leaf}" for leaf in ("bias", "weight")
    ]
