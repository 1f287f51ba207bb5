"""PyTorch gets the checkpoint, all of it and nothing else: no code, adapter or setting acts."""

import codecs
import io
import json
import re
import shutil
import sys

import numpy as np
import onnxruntime
import pytest
import torch
import transformers
from antibodies import antibodies
from artifacts import edit_json, edit_tensors, patch, texts_of
from families import save_family
from safetensors.torch import load_file, save_file
from task_models import save_model

from surgeon import Options, evaluate, export, open_checkpoint, rank_dimensions
from surgeon.errors import ExportError, SurgeonError
from surgeon.text import ranking_sample
from surgeon.torch_model.directory import model_folder, tokenizer_folder
from surgeon.torch_model.loading import decoder_start_of, load_model
from surgeon.torch_model.parameters import check_tensors
from surgeon.torch_model.tokenizer import load_tokenizer, text_encoder

_TEXTS = texts_of(ranking_sample().lines[:12])
_PATTERN = r"electra\.encoder\.layer\.\d+\.output\.LayerNorm"
_KERNEL = "kernels-community/flash-attn2"
_CODE = """
import pathlib
pathlib.Path(__file__).with_name("ran").touch()
from transformers import BertConfig, BertModel, BertTokenizerFast
class Config(BertConfig):
    model_type = "own"
class Model(BertModel):
    config_class = Config
class Tokenizer(BertTokenizerFast):
    pass
"""
_CLASSES = {"AutoConfig": "own.Config", "AutoModel": "own.Model"}
_LEFT_OVERS = {
    "auto_map": {**_CLASSES, "AutoModelForPreTraining": "own.Model"},
    "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True},
    "_attn_implementation": _KERNEL,
    "attn_implementation": _KERNEL,
    "experts_implementation": "own",
    "transformers_weights": "other.safetensors",
    "torch_dtype": "float16",
    "return_dict": False,
    "fusion_config": {"patch_embeddings": True},
}


def _bring_code(folder, **config):
    """Give a checkpoint code that leaves a file behind if it runs."""
    (folder / "own.py").write_text(_CODE)
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(_CODE)
    edit_json(folder / "config.json", **config)
    edit_json(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "own.Tokenizer"]})


def _bring_adapter(folder):
    """Lay an adapter beside the weights, as peft does, that would change every output."""
    config = {
        "peft_type": "LORA", "task_type": None, "r": 2, "lora_alpha": 64, "bias": "none",
        "target_modules": ["query", "value"], "base_model_name_or_path": "none/such",
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config))
    tensors = {}
    for name, weight in load_file(folder / "model.safetensors").items():
        if name.endswith(("self.query.weight", "self.value.weight")):
            place = f"base_model.model.{name.removesuffix('.weight')}"
            tensors[f"{place}.lora_A.weight"] = torch.ones(2, weight.shape[1])
            tensors[f"{place}.lora_B.weight"] = torch.ones(weight.shape[0], 2)
    assert tensors
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


@pytest.fixture
def asked(monkeypatch):
    """Standard input with an answer to every question, which nobody may read."""
    answers = io.StringIO("y\n" * 9)
    monkeypatch.setattr(sys, "stdin", answers)
    yield
    assert answers.tell() == 0
    assert sys.stdin is answers


def _refusals(model, output, **how):
    """What a patch, an export and a ranking by ablation say of a model that none of them takes."""
    checkpoint = open_checkpoint(model, **how)
    for attempt in (
        lambda: patch(checkpoint, output, onnx=True, dims=(3,)),
        lambda: export(checkpoint, output),
        lambda: rank_dimensions(checkpoint, "ablation", Options(texts=_TEXTS)),
    ):
        with pytest.raises(SurgeonError) as caught:
            attempt()
        yield str(caught.value)


def _run(graph, ids):
    given = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    given["token_type_ids"] = np.zeros_like(ids)
    session = onnxruntime.InferenceSession(graph)
    return session.run(None, {i.name: given[i.name] for i in session.get_inputs()})[0]


def _in_pytorch(model, ids):
    with torch.no_grad():
        own = transformers.AutoModelForPreTraining.from_pretrained(model)
        return own(torch.from_numpy(ids)).logits.numpy()


def test_what_lies_beside_the_weights_changes_nothing_and_is_named(tmp_path, asked):
    """In an export, a patch, a ranking by ablation and an evaluation."""
    ids = np.arange(5, 45).reshape(4, 10)
    plain = save_model("rtd", tmp_path / "plain")
    laden = save_model("rtd", tmp_path / "laden")
    _bring_code(laden, **_LEFT_OVERS)
    _bring_adapter(laden)
    checkpoint = open_checkpoint(laden)
    exported = export(checkpoint, tmp_path / "export")
    record = patch(checkpoint, tmp_path / "out", onnx=True, dims=(3,))
    result = evaluate(tmp_path / "out", texts=_TEXTS, controls=2)
    options = Options(texts=_TEXTS)
    wanted, found = (
        rank_dimensions(open_checkpoint(m), "ablation", options) for m in (plain, laden)
    )
    for sentences in (
        exported.onnx.not_applied,
        record.onnx["not_applied"],
        result.warnings,
        found.warnings,
    ):
        text = " ".join(sentences)
        assert "config.json names code of the checkpoint (auto_map: own.Config, own.Model)" in text
        assert "tokenizer_config.json names code of the checkpoint" in text
        assert "config.json has a quantization_config and the weights are plain" in text
        assert "that adapter was not applied" in text
    assert set(found.warnings) - set(wanted.warnings) == set(record.onnx["not_applied"])
    assert found.dimensions == wanted.dimensions
    graphs = [tmp_path / name / "onnx" / "model.onnx" for name in ("export", "out")]
    np.testing.assert_allclose(_run(graphs[0], ids), _in_pytorch(plain, ids), atol=1e-5)
    shutil.copy(tmp_path / "out" / "model.safetensors", plain)
    np.testing.assert_allclose(_run(graphs[1], ids), _in_pytorch(plain, ids), atol=1e-5)
    assert not list(tmp_path.rglob("ran"))


def test_the_folder_that_transformers_gets_holds_what_it_needs_and_no_more(tmp_path):
    model = save_model("rtd", tmp_path / "model")
    _bring_code(model, **_LEFT_OVERS, text_config={**_LEFT_OVERS, "vocab_size": 7})
    _bring_adapter(model)
    with model_folder(open_checkpoint(model)) as folder:
        assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
        config = json.loads((folder / "config.json").read_text())
        assert not set(_LEFT_OVERS) & {*config, *config["text_config"]}
        assert config["text_config"] == {"vocab_size": 7}
    with tokenizer_folder(model) as folder:
        names = {path.name for path in folder.iterdir()}
        assert "tokenizer.json" in names
        assert not any(n.endswith(".py") or "adapter" in n or "safetensors" in n for n in names)
        assert "auto_map" not in (folder / "tokenizer_config.json").read_text()
    assert not folder.exists()


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "own", "auto_map": _CLASSES},
        {"model_type": "own", "auto_map": {"AutoModel": "some/repository--own.Model"}},
        {"model_type": None, "auto_map": _CLASSES},
        {"model_type": "own", "text_config": {"model_type": "own", "auto_map": _CLASSES}},
    ],
    ids=["known to nobody", "of another repository", "of no type", "in a part"],
)
def test_a_model_that_only_its_own_code_computes_is_refused_unasked(tmp_path, asked, config):
    model = save_model("rtd", tmp_path / "model")
    _bring_code(model, **config)
    for refusal in _refusals(model, tmp_path / "out", sites_pattern=_PATTERN):
        assert f"{model / 'config.json'}: transformers has no model_type" in refusal
        assert "own.Model" in refusal
        assert "is not run; " in refusal
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
    assert not list(tmp_path.rglob("ran"))


@pytest.mark.parametrize("settings", ["tokenizer_config.json", "special_tokens_map.json"])
def test_no_file_elsewhere_is_taken_for_the_vocabulary(tmp_path, settings):
    """What it has would be carried off into the artifact's tokenizer.json."""
    secret = tmp_path / "secret"
    secret.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhunter2\n")
    model = tmp_path / "model"
    transformers.BertConfig().save_pretrained(model)
    (model / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nword\n")
    edit_json(model / settings, vocab_file=str(secret), tokenizer_file=str(secret))
    vocabulary = load_tokenizer(model).get_vocab()
    assert "word" in vocabulary
    assert "hunter2" not in vocabulary


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """A BERT and a mixture of experts as they are loaded."""
    made = {}
    for name in ("bert", "mixtral"):
        folder = tmp_path_factory.mktemp("model") / name
        save_family(name, folder)
        made[name] = load_model(open_checkpoint(folder))
    return made


def _bit(tensors):
    for name, tensor in tensors.items():
        if name.endswith("query.weight"):
            tensor.view(torch.int32)[3, 4] ^= 1
            return


def _swap(tensors):
    one, other = (
        next(t for n, t in tensors.items() if n.endswith(end))
        for end in ("query.weight", "key.weight")
    )
    one[:], other[:] = other.clone(), one.clone()


def _layers(tensors):
    one, other = (t for n, t in tensors.items() if n.endswith("experts.down_proj"))
    one[:], other[:] = other.clone(), one.clone()


def _row(tensors):
    next(t for n, t in tensors.items() if n.endswith("experts.gate_up_proj"))[1, 5, 2] += 1e-3


@pytest.mark.parametrize(
    ("name", "change", "complaint"),
    [
        ("bert", _bit, r"query.weight of transformers' BertForMaskedLM is not what"),
        ("bert", _swap, r"query.weight of transformers' BertForMaskedLM is not what"),
        ("mixtral", _layers, r"layers.0.mlp.experts.down_proj of transformers' Mixtral"),
        ("mixtral", _row, r"experts.gate_up_proj of transformers' MixtralForCausalLM is not"),
    ],
)
def test_a_tensor_that_is_not_the_file_s_is_found(loaded, name, change, complaint):
    model, checkpoint = loaded[name].model, loaded[name].checkpoint
    before = {key: value.clone() for key, value in model.state_dict().items()}
    check_tensors(checkpoint, model, ())
    with torch.no_grad():
        change(model.state_dict())
        try:
            with pytest.raises(ExportError, match=complaint):
                check_tensors(checkpoint, model, ())
        finally:
            for key, value in model.state_dict().items():
                value.copy_(before[key])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_no_dtype_and_no_odd_value_makes_a_tensor_another(tmp_path, tiny, dtype):
    """A NaN has many forms, and what is beyond float32 becomes infinite."""
    name = "bert.encoder.layer.1.attention.self.query.weight"
    model = shutil.copytree(tiny("bert"), tmp_path / "model")
    odd = torch.tensor([float("nan"), float("inf"), torch.finfo(dtype).max])
    edit_tensors(model, lambda tensors: {n: t.to(dtype) for n, t in tensors.items()})
    edit_tensors(model, lambda tensors: tensors[name][0, :3].copy_(odd))
    edit_tensors(model, _add(**{"cls.empty": torch.empty(0, 4, dtype=dtype)}))
    held = load_model(open_checkpoint(model)).model.state_dict()
    assert torch.isnan(held[name]).sum() == 1


_GATE = "bert.encoder.layer.0.attention.self.gate.weight"


def _add(**tensors):
    return lambda kept: kept.update(tensors)


def _scale(tensors):
    for name in [n for n in tensors if "experts" in n]:
        tensors[f"{name}_scale_inv"] = torch.ones(1, 1)


def _scale_all(tensors):
    """As ModelOpt stores float8, of which it may say nothing in config.json."""
    for name in [n for n in tensors if n.endswith("dense.weight")]:
        tensors |= {name: tensors[name].to(torch.float8_e4m3fn), f"{name}_scale": torch.tensor(2.0)}


def _cut(tensors):
    name = next(n for n in tensors if "experts.1.w2" in n)
    tensors[name] = tensors[name][:, :20].clone()


_GPTQ = {"quantization_config": {"quant_method": "gptq", "bits": 4}}


@pytest.mark.parametrize(
    ("name", "change", "config", "complaint"),
    [
        ("bert", _add(), {"intermediate_size": 20}, r"is \[24(, 16)?\] in the weights, and"),
        ("bert", _add(**{_GATE: torch.ones(16, 16)}), {}, f"{_GATE} is not in transformers' Bert"),
        ("mixtral", _scale, {}, r"weight_scale_inv is not in transformers' Mixtral"),
        ("bert", _add(qweight=torch.ones(4).int()), _GPTQ, r"qweight is I32, quantized as .*\(g"),
        ("bert", _scale_all, {}, r"dense.weight is F8_E4M3, quantized as .*dense.weight_scale b"),
        ("mixtral", _cut, {}, r"experts.1.w2.weight"),
    ],
)
def test_weights_that_are_not_the_model_s_are_refused_by_name(
    tmp_path, name, change, config, complaint
):
    model = tmp_path / "model"
    save_family(name, model)
    edit_json(model / "config.json", **config)
    edit_tensors(model, change)
    with pytest.raises(SurgeonError, match=complaint) as caught:
        patch(model, tmp_path / "out", onnx=True, dims=(3,), layers=(1,))
    assert "`onnx=False`" in str(caught.value)
    assert "report" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


@pytest.mark.parametrize("metadata", [{}, {"metadata": None}])
def test_a_byte_order_mark_and_an_index_without_metadata_are_read(tmp_path, tiny, metadata):
    model = tmp_path / "model"
    source = transformers.AutoModelForMaskedLM.from_pretrained(tiny("bert"))
    source.save_pretrained(model, max_shard_size="8KB")
    index = model / "model.safetensors.index.json"
    index.write_text(
        json.dumps({**metadata, "weight_map": json.loads(index.read_text())["weight_map"]})
    )
    config = model / "config.json"
    config.write_bytes(codecs.BOM_UTF8 + config.read_bytes())
    held = load_model(open_checkpoint(model)).model.state_dict()
    assert all(torch.equal(held[name], value) for name, value in source.state_dict().items())


@pytest.mark.parametrize(
    "values", [{"hidden_act": "none such"}, {"num_attention_heads": 5}, {"hidden_dropout_prob": 5}]
)
def test_an_error_of_transformers_names_the_source_and_no_folder_that_is_gone(
    tmp_path, tiny, values
):
    model = tmp_path / "model"
    shutil.copytree(tiny("bert"), model)
    edit_json(model / "config.json", **values)
    with pytest.raises(ExportError) as caught:
        patch(model, tmp_path / "out", onnx=True)
    assert str(caught.value).startswith("model: transformers cannot load the model (")
    assert "surgeon-" not in str(caught.value)
    assert ".out" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def _newer(model):
    edit_json(model / "tokenizer.json", pre_tokenizer={"type": "OfTheNextRelease"})
    return "tokenizer.json: .*PreTokenizer.*"


def _cut_off(model):
    file = model / "tokenizer.json"
    file.write_bytes(file.read_bytes()[:-100])
    return r"tokenizer.json: .*"


def _settings(model):
    (model / "tokenizer_config.json").write_text("{")
    return r"tokenizer_config.json: not valid JSON"


def _pieces(model):
    (model / "tokenizer.json").unlink()
    (model / "spiece.model").write_bytes(b"\x0a\x0enot what it is")
    edit_json(model / "tokenizer_config.json", tokenizer_class="XLNetTokenizer")
    return r"spiece.model: .*pip install sentencepiece"


def _ranks(model):
    (model / "tokenizer.json").unlink()
    (model / "tokenizer.model").write_text("IQ== 0\nIg== 1\n")
    return r"tokenizer.model: tiktoken, which reads .*; pip install tiktoken"


def _pieces_beside_a_vocabulary(model):
    _pieces(model)
    (model / "spiece.model").rename(model / "source.spm")
    (model / "vocab.json").write_text('{"the": 0}')
    edit_json(model / "tokenizer_config.json", tokenizer_class="MarianTokenizer")
    return r"source.spm: sentencepiece, which reads .*; pip install sentencepiece"


@pytest.mark.parametrize(
    "spoil", [_newer, _cut_off, _settings, _pieces, _ranks, _pieces_beside_a_vocabulary]
)
def test_a_tokenizer_that_is_there_and_cannot_be_read_is_told_by_the_patch(
    tmp_path, spoil, monkeypatch
):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)  # as if it were not installed
    model = save_model("rtd", tmp_path / "model")
    complaint = spoil(model)
    for refusal in _refusals(model, tmp_path / "out"):
        assert re.search(f"{model}/{complaint}", refusal)
        assert "\n" not in refusal
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def _save_esm(folder):
    """ESM-2's own layout: vocab.txt, and a tokenizer that transformers has in Python alone."""
    letters = [*"LAGVSERTIDPKQNFYMHWCXBUZO", ".", "-", "<null_1>", "<mask>"]
    vocabulary = ["<cls>", "<pad>", "<eos>", "<unk>", *letters]
    torch.manual_seed(0)
    config = transformers.EsmConfig(
        vocab_size=33, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=24, max_position_embeddings=64, position_embedding_type="rotary",
        pad_token_id=1, mask_token_id=32, token_dropout=True,
    )  # fmt: skip
    transformers.EsmForMaskedLM(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    special = {"pad": "<pad>", "mask": "<mask>", "unk": "<unk>", "cls": "<cls>", "eos": "<eos>"}
    named = {f"{role}_token": token for role, token in special.items()}
    edit_json(folder / "tokenizer_config.json", tokenizer_class="EsmTokenizer", **named)
    return folder


@pytest.mark.slow
def test_esm_in_its_own_layout_is_patched_and_evaluated(tmp_path, asked):
    model = _save_esm(tmp_path / "model")
    _bring_code(model)
    record = patch(model, tmp_path / "out", onnx=True, dims=(3,))
    assert record.onnx["tokenizer"]["file"] == "vocab.txt"
    texts = texts_of(antibodies(8))
    result = evaluate(tmp_path / "out", texts=texts, controls=2)
    assert (result.task, result.dataset.unknown) == ("mlm", 0)
    assert result.dataset.tokens == 8 * 62  # cut, with a token at each end
    assert rank_dimensions(open_checkpoint(model), "ablation", Options(texts=texts)).dimensions
    assert not list(tmp_path.rglob("ran"))


@pytest.mark.parametrize("name", ["esm", "byt5"])
def test_a_tokenizer_in_python_alone_encodes_as_transformers_does(tmp_path, name):
    model = tmp_path / "model"
    if name == "esm":
        _save_esm(model)
    else:
        transformers.ByT5Tokenizer().save_pretrained(model)
        transformers.T5Config().save_pretrained(model)
    own = transformers.AutoTokenizer.from_pretrained(model)
    assert not own.is_fast
    encoder = text_encoder(load_tokenizer(model))
    texts = ["MKTV LLAG", ("MKT", "GGASVV"), "W", "M J?K"]
    for most in (None, 5):
        if most:
            encoder.enable_truncation(most)
        for text, encoded in zip(texts, encoder.encode_batch(texts), strict=True):
            pair = text if isinstance(text, tuple) else (text,)
            assert encoded.ids == own(*pair, truncation=bool(most), max_length=most)["input_ids"]
            assert len(encoded.ids) == len(encoded.type_ids) == len(encoded.special_tokens_mask)
    encoder.no_truncation()
    with pytest.raises(SurgeonError, match="half of a surrogate pair"):
        encoder.encode_batch(["a\ud800"])
    for further in ("word_ids", "overflowing"):
        with pytest.raises(SurgeonError, match="in Python only"):
            getattr(encoder.encode("MKTV"), further)


def test_the_start_of_a_decoder_may_be_said_with_the_generation(tmp_path):
    model = save_model("denoising", tmp_path / "model")
    edit_json(model / "config.json", decoder_start_token_id=None)
    edit_json(model / "generation_config.json", decoder_start_token_id=7)
    assert decoder_start_of(load_model(open_checkpoint(model))) == 7


def test_a_tied_tensor_is_not_taken_for_one_whose_name_ends_alike(tmp_path):
    save_family("luke", tmp_path)
    held = load_model(open_checkpoint(tmp_path)).model.state_dict(keep_vars=True)
    entities = held["luke.entity_embeddings.entity_embeddings.weight"]
    assert held["entity_predictions.decoder.weight"] is entities


def test_positions_that_a_body_computes_need_not_be_in_its_file(tmp_path):
    save_family("marian", tmp_path)
    assert not [name for name in open_checkpoint(tmp_path).tensors if "positions" in name]
    body = load_model(open_checkpoint(tmp_path), "drift").model.decoder.embed_positions.weight
    whole = load_model(open_checkpoint(tmp_path)).model.model.decoder.embed_positions.weight
    assert torch.equal(body, whole)
