import json

import numpy as np
import onnxruntime
import pytest
import torch
import transformers
from families import save_family
from heads import save_head

from surgeon import open_checkpoint
from surgeon.cli import run
from surgeon.onnx.weights import read_initializers


@pytest.fixture(scope="module")
def exported(minilm, tmp_path_factory):
    """MiniLM as surgeon export lays it out."""
    output = tmp_path_factory.mktemp("exports") / "out"
    assert run(["export", str(minilm), "-o", str(output)]) == 0
    return output


def _files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_an_export_has_the_graph_and_all_of_the_source_but_weights_and_card(exported, minilm):
    taken = {
        name
        for name in _files(minilm)
        if name != "README.md" and not name.endswith((".safetensors", ".bin", ".onnx"))
    }
    assert {"config.json", "tokenizer.json", "tokenizer_config.json"} <= taken
    assert _files(exported) == taken | {"onnx/model.onnx", "surgeon/export.json"}
    for name in taken:
        assert (exported / name).read_bytes() == (minilm / name).read_bytes()


def test_the_exported_graph_is_the_model_as_transformers_loads_it(exported, minilm):
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
    model = transformers.AutoModel.from_pretrained(minilm).eval()
    batch = tokenizer(["Nothing was removed.", "Nothing."], padding=True, return_tensors="np")
    with torch.no_grad():
        expected = model(**{n: torch.from_numpy(v) for n, v in batch.items()}).last_hidden_state
    session = onnxruntime.InferenceSession(exported / "onnx" / "model.onnx")
    (got,) = session.run(["last_hidden_state"], dict(batch))
    real = batch["attention_mask"].astype(bool)
    np.testing.assert_allclose(got[real], expected.numpy()[real], atol=1e-4)
    vectors = {site.gain for site in open_checkpoint(minilm).sites}
    stored = read_initializers(exported / "onnx" / "model.onnx", vectors)
    assert all(np.array_equal(stored[name], open_checkpoint(minilm).read(name)) for name in vectors)


def test_the_facts_of_an_export_lie_beside_it(exported):
    facts = json.loads((exported / "surgeon" / "export.json").read_text())
    assert facts["architecture"] == "BERT"
    assert facts["onnx"]["task"] == "drift"
    assert facts["onnx"]["inputs"] == ["input_ids", "attention_mask", "token_type_ids"]
    assert facts["onnx"]["parity"]["largest"] < 1e-4
    assert facts["onnx"]["tokenizer"]["file"] == "tokenizer.json"
    assert facts["files"].keys() == _files(exported) - {"surgeon/export.json"}
    assert facts["files"]["config.json"]["size"] == (exported / "config.json").stat().st_size


def test_json_is_the_facts_and_a_second_export_needs_force(tmp_path, capsys):
    save_head("roberta, classification", tmp_path / "model")
    out = tmp_path / "out"
    call = ["export", str(tmp_path / "model"), "-o", str(out), "--json"]
    assert run(call) == 0
    document = json.loads(capsys.readouterr().out)
    assert document.pop("output") == str(out)
    assert document == json.loads((out / "surgeon" / "export.json").read_text())
    assert document["onnx"]["labels"] == ["neutral", "entailment", "contradiction"]
    assert run(call) == 2
    assert "--force" in capsys.readouterr().err
    assert run([*call, "--force", "--dtype", "float16"]) == 0
    half = json.loads(capsys.readouterr().out)
    assert half["onnx"]["dtype"] == "float16"
    assert half["files"]["onnx/model.onnx"]["size"] < document["files"]["onnx/model.onnx"]["size"]
    assert {path.name for path in tmp_path.iterdir()} == {"model", "out"}


def test_a_model_that_does_not_export_is_one_line_and_leaves_nothing(tmp_path, capsys):
    save_family("vit", tmp_path / "model")
    capsys.readouterr()  # transformers' own words
    assert run(["export", str(tmp_path / "model"), "-o", str(tmp_path / "new" / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "model: ViTModel takes pixel_values, and only models that take text" in line
    assert line.endswith("run it in PyTorch instead")
    assert {path.name for path in tmp_path.iterdir()} == {"model"}


def test_weights_without_a_configuration_are_one_line(tiny, tmp_path, capsys):
    (tmp_path / "w.safetensors").write_bytes((tiny("bert") / "model.safetensors").read_bytes())
    capsys.readouterr()
    out = tmp_path / "out"
    assert run(["export", str(tmp_path / "w.safetensors"), "-o", str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "w.safetensors: has no config.json beside it" in line
    assert not out.exists()


def test_a_pickle_is_exported_with_a_tokenizer_that_needs_no_transformers(iglm_s, tmp_path):
    assert run(["export", str(iglm_s), "-o", str(tmp_path / "out")]) == 0
    facts = json.loads((tmp_path / "out" / "surgeon" / "export.json").read_text())["onnx"]
    assert facts["task"] == "clm"
    assert facts["tokenizer"]["file"] == "onnx/tokenizer.json"
    assert (tmp_path / "out" / "onnx" / "tokenizer.json").is_file()
    assert not any(name.endswith((".bin", ".safetensors")) for name in _files(tmp_path / "out"))


def test_an_architecture_without_a_row_is_exported_by_a_pattern(tmp_path):
    config = transformers.BertGenerationConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        vocab_size=40,
        max_position_embeddings=64,
    )
    transformers.BertGenerationEncoder(config).save_pretrained(tmp_path / "model")
    pattern = r"encoder\.layer\.\d+\.output\.LayerNorm"
    call = ["export", str(tmp_path / "model"), "-o", str(tmp_path / "out")]
    assert run(call) == 2
    assert run([*call, "--sites-pattern", pattern]) == 0
    facts = json.loads((tmp_path / "out" / "surgeon" / "export.json").read_text())["onnx"]
    assert facts["vectors"] == [
        f"encoder.layer.{layer}.output.LayerNorm.{leaf}"
        for layer in range(2)
        for leaf in ("bias", "weight")
    ]
