import dataclasses
import importlib
import json
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import transformers
from artifacts import edit_json, edit_tensors, patch, texts_of
from conftest import rename_tensors
from families import EVERY, save_family
from heads import save_head
from onnx_exports import initializers
from task_models import MODELS, save_model, word_tokenizer
from tiny import TEXT, make_unequal
from tokenizers import processors

from surgeon import evaluate, open_checkpoint, read_record, verify
from surgeon.console import show_record
from surgeon.errors import ExportError, ParityError
from surgeon.families import family_of
from surgeon.onnx.facts import onnx_facts
from surgeon.onnx.parity import Probe, check_parity, make_feeds, run_probe
from surgeon.onnx.weights import read_initializers
from surgeon.tasks.examples import Example, batch_examples
from surgeon.text import built_in_sample
from surgeon.torch_model.heads import detect_task, unscored_head
from surgeon.torch_model.loading import load_model
from surgeon.torch_model.tokenizer import load_tokenizer

_TASKS = {
    "bert": "mlm",
    "roberta": "mlm",
    "electra": "mlm",
    "mpnet": "mlm",
    "distilbert": "mlm",
    "gpt2": "clm",
}
_ONE_LAYER = transformers.BertConfig(**{**TEXT, "num_hidden_layers": 1})


def _patch(model, output, **fields):
    return patch(model, output, onnx=True, **{"dims": (3,), **fields})


@pytest.fixture(scope="module")
def one_layer(tmp_path_factory):
    """A masked BERT of one layer, without a tokenizer."""
    folder = tmp_path_factory.mktemp("one") / "layer"
    make_unequal(transformers.BertForMaskedLM, _ONE_LAYER).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", ["bert", pytest.param("gpt2", marks=pytest.mark.slow)])
def test_equal_initializers_stay_apart_so_that_only_the_planned_vectors_differ(tmp_path, family):
    """A fresh model has all gains 1 and all biases 0: the exporter would merge them."""
    torch.manual_seed(0)
    config = EVERY[family].config if family == "gpt2" else _ONE_LAYER
    fresh = EVERY[family].model(config)
    biases = [p for n, p in fresh.named_parameters() if n.endswith("bias")]
    assert biases
    assert all((bias == 0).all() for bias in biases)
    fresh.save_pretrained(tmp_path / "fresh")
    untouched = _patch(tmp_path / "fresh", tmp_path / "a", mode="scale", factor=1.0)
    patched = _patch(tmp_path / "fresh", tmp_path / "b", params=("gain",), layers=(0,))
    assert untouched.parameters_changed == 0
    before, after = (
        initializers(onnx.load(tmp_path / out / "onnx" / "model.onnx")) for out in "ab"
    )
    vectors = set(patched.onnx["vectors"])
    assert vectors <= before.keys()
    assert {n: v.shape for n, v in before.items()} == {n: v.shape for n, v in after.items()}
    differing = {name for name in before if not np.array_equal(before[name], after[name])}
    assert differing == {edit.tensor for edit in patched.edits}
    assert len(differing) == 1


def test_a_model_that_does_not_give_what_its_task_is_scored_on_is_one_line(tmp_path):
    config = transformers.DPRConfig(**{**TEXT, "num_hidden_layers": 1})
    transformers.DPRQuestionEncoder(config).save_pretrained(tmp_path / "dpr")
    with pytest.raises(ExportError, match="DPRQuestionEncoder gives no last_hidden_state; use"):
        _patch(tmp_path / "dpr", tmp_path / "out")


@pytest.mark.slow
def test_longformer_s_questions_end_at_the_first_of_three_separators(tmp_path):
    sizes = {**TEXT, "num_hidden_layers": 1, "vocab_size": 800, "max_position_embeddings": 512}
    config = transformers.LongformerConfig(**sizes, attention_window=4, sep_token_id=3)
    model = make_unequal(transformers.LongformerForQuestionAnswering, config)
    model.save_pretrained(tmp_path / "model")
    tokenizer = word_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] [SEP] $B [SEP]",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.save_pretrained(tmp_path / "model")
    record = _patch(tmp_path / "model", tmp_path / "out")
    assert record.onnx["parity"]["largest"] <= 1e-4


def test_checkpoint_names_with_gamma_and_no_prefix_are_kept_in_onnx(one_layer, tmp_path):
    def rename(name):
        name = name.removeprefix("bert.")
        return name.replace("LayerNorm.weight", "LayerNorm.gamma") if "output" in name else name

    rename_tensors(one_layer, tmp_path / "old", rename)
    record = _patch(tmp_path / "old", tmp_path / "out")
    assert "encoder.layer.0.output.LayerNorm.gamma" in record.onnx["vectors"]
    stored = read_initializers(tmp_path / "out" / "onnx" / "model.onnx", record.onnx["vectors"])
    assert stored["encoder.layer.0.output.LayerNorm.gamma"][3] == 0


def test_the_graph_holds_no_path_of_the_machine_that_made_it(minilm_patched):
    model = onnx.load(minilm_patched / "onnx" / "model.onnx")
    assert len(model.graph.node) > 100
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert not model.metadata_props
    assert not model.graph.metadata_props
    text = str([model.graph.node, model.graph.input, model.graph.output, model.functions])
    assert "site-packages" not in text
    assert ".py" not in text


def test_a_graph_that_computes_something_else_fails_the_check(minilm_patched):
    batch = batch_examples(
        [Example((101, 2003, 102))], ("input_ids", "attention_mask", "token_type_ids"), 0
    )
    path = minilm_patched / "onnx" / "model.onnx"
    (output,) = onnxruntime.InferenceSession(path).run(None, dict(batch))
    real = batch["attention_mask"].astype(bool)

    def check(by, dtype="float32"):
        probe = Probe(batch, (output + np.float32(by),), real)
        return check_parity(path, [probe], dtype)

    assert check(0).largest == 0
    assert 0 < check(0).largest_unoptimized < 1e-4  # other kernels, other roundings
    for by in (0.01, float("nan")):
        with pytest.raises(ParityError, match="differs from PyTorch"):
            check(by)
    assert check(0.01, "float16").largest == pytest.approx(0.01, rel=1e-3)
    with pytest.raises(ParityError, match="differs from PyTorch"):
        check(0.1 * np.abs(output).max(), "float16")


def test_optimisations_that_change_the_result_fail_the_check(tmp_path):
    """onnxruntime fuses a LayerNorm, and the fused one rounds more where the mean is large."""
    path = tmp_path / "model.onnx"
    onnx.save(_layernorm_in_parts(64), path)
    feed = {"input_ids": np.full((1, 2), 100_000)}
    levels = onnxruntime.GraphOptimizationLevel
    found = {}
    for how, level in (("on", levels.ORT_ENABLE_ALL), ("off", levels.ORT_DISABLE_ALL)):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = level
        found[how] = onnxruntime.InferenceSession(path, options).run(None, feed)[0]
    assert np.abs(found["on"] - found["off"]).max() > 1e-3
    for right, wrong in (("on", "off"), ("off", "on")):
        probe = Probe(feed, (found[right],), np.ones(1, dtype=bool))
        with pytest.raises(ExportError, match=f"graph optimisations {wrong}"):
            check_parity(path, [probe], "float32")


def _layernorm_in_parts(hidden):
    model = onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["" : 18]>
        parts (int64[batch, sequence] input_ids) => (float[batch, sequence, {hidden}] logits)
        <int64[1] axis = {{-1}}, float two = {{2}}, float epsilon = {{1e-12}}> {{
            tokens = Cast<to = 1>(input_ids)
            column = Unsqueeze(tokens, axis)
            x = Add(column, row)
            mean = ReduceMean<keepdims = 1>(x, axis)
            centred = Sub(x, mean)
            squares = Pow(centred, two)
            variance = ReduceMean<keepdims = 1>(squares, axis)
            positive = Add(variance, epsilon)
            deviation = Sqrt(positive)
            normal = Div(centred, deviation)
            scaled = Mul(normal, gain)
            logits = Add(scaled, bias)
        }}""")
    row = np.sin(np.arange(hidden)).astype(np.float32)
    for name, values in {"row": row, "gain": row * 0 + 1, "bias": row * 0}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return model


def test_a_failed_check_fails_the_command_and_leaves_nothing(one_layer, tmp_path, monkeypatch):
    export = importlib.import_module("surgeon.onnx.export")

    def shifted(*given):
        honest = run_probe(*given)
        return Probe(honest.feed, tuple(e + 0.01 for e in honest.expected), honest.real)

    monkeypatch.setattr(export, "run_probe", shifted)
    with pytest.raises(ExportError, match="`onnx=False`"):
        _patch(one_layer, tmp_path / "out", fresh=True)
    assert list(tmp_path.iterdir()) == []


_PLACE = "bert.encoder.layer.0"
_BIAS = f"model.safetensors: {_PLACE}.output.dense.bias holds 2 of 16 values that are no"


def _fill(value):
    return lambda tensors: tensors[f"{_PLACE}.output.dense.bias"][2:4].fill_(value)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            lambda t: t.pop(f"{_PLACE}.intermediate.dense.weight"),
            r"no weights for .*intermediate",
        ),
        (_fill(np.nan), _BIAS),
        (_fill(np.inf), _BIAS),
    ],
)
def test_weights_that_are_missing_or_not_finite_are_named(one_layer, tmp_path, change, complaint):
    source = shutil.copytree(one_layer, tmp_path / "source")
    edit_tensors(source, change)
    with pytest.raises(ExportError, match=f"{complaint}.*use `onnx=False`"):
        _patch(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_task_follows_the_head_that_is_there(tiny, antiberty, iglm_s, minilm):
    tasks = {family: detect_task(open_checkpoint(tiny(family))) for family in _TASKS}
    assert tasks == _TASKS
    assert detect_task(open_checkpoint(antiberty)) == "mlm"  # its class is unknown, its head not
    assert detect_task(open_checkpoint(iglm_s)) == "clm"
    assert detect_task(open_checkpoint(minilm)) == "drift"


@pytest.mark.parametrize(
    ("head", "declared", "task"),
    [
        ("bert, questions", None, "question-answering"),  # known by its tensors
        ("bert, questions", ["BertForMaskedLM"], "drift"),  # which it has not
        ("bert, questions", ["BertForQuestionAnswering"], "question-answering"),
        (None, ["BertForSequenceClassification"], "mlm"),  # declared, and without its tensors
    ],
)
def test_a_head_is_in_the_tensors_and_declared_or_nothing_is(tiny, tmp_path, head, declared, task):
    if head is None:
        shutil.copytree(tiny("bert"), tmp_path, dirs_exist_ok=True)
    else:
        save_head(head, tmp_path)
    edit_json(tmp_path / "config.json", architectures=declared)
    assert detect_task(open_checkpoint(tmp_path)) == task


def test_a_bart_without_a_head_is_one_with_the_head_that_it_shares(tmp_path):
    """facebook/bart-base declares a BartModel, and fills in blanks with its embeddings."""
    transformers.BartModel(MODELS["denoising"][1]).save_pretrained(tmp_path)
    loaded = load_model(open_checkpoint(tmp_path))
    assert loaded.task == "denoising"
    assert loaded.model.lm_head.weight is loaded.model.model.shared.weight


def test_the_facts_of_an_older_record_are_read(minilm_patched):
    facts = read_record(minilm_patched).onnx
    added = ("outputs", "labels", "decoder_start_id", "padding", "dtype")
    old = {name: value for name, value in facts.items() if name not in added}
    old["parity"] = {n: v for n, v in facts["parity"].items() if n != "largest_unoptimized"}
    read = onnx_facts(old)
    assert read.outputs == (read.output,) == ("last_hidden_state",)
    assert read.parity.largest_unoptimized is None
    assert dataclasses.replace(read, parity=onnx_facts(facts).parity) == onnx_facts(facts)
    with pytest.raises(ValueError, match="output"):
        onnx_facts({n: v for n, v in old.items() if n != "output"})


@pytest.fixture(scope="module")
def external(embedder, tmp_path_factory):
    """A standalone graph as if it were over a protobuf's limit: its weights beside it."""
    view = importlib.import_module("surgeon.onnx.view")
    output = tmp_path_factory.mktemp("external") / "out"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(view, "_INLINE_LIMIT", 1000)
        _patch(embedder, output, dims=(3, 8), standalone=True)
    return output


def test_weights_over_the_limit_lie_beside_the_graph(external, embedder_patched):
    graph, data = external / "onnx" / "model.onnx", external / "onnx" / "model.onnx_data"
    view = embedder_patched / "onnx" / "model.onnx"
    weights = sum(values.nbytes for values in initializers(onnx.load(view)).values())
    assert data.stat().st_size > 0.9 * weights
    assert graph.stat().st_size < 2 * view.stat().st_size
    assert read_record(external).files["onnx/model.onnx_data"].after.size == data.stat().st_size
    with pytest.MonkeyPatch.context() as elsewhere:  # the graph names the file beside it alone
        elsewhere.chdir(external.parent)
        session = onnxruntime.InferenceSession(graph)
    batch = batch_examples([Example((2, 9, 3))], read_record(external).onnx["inputs"], 0)
    expected = onnxruntime.InferenceSession(view).run(None, dict(batch))[0]
    np.testing.assert_array_equal(session.run(None, dict(batch))[0], expected)


def test_eval_and_verify_read_weights_beside_the_graph(external, embedder_patched):
    assert verify(external).passed
    texts = texts_of(built_in_sample().lines[:8])
    one, other = (evaluate(a, texts=texts, controls=2) for a in (external, embedder_patched))
    assert one.patched.value == other.patched.value != 0
    assert one.controls == other.controls


@pytest.mark.parametrize("family", ["bert", pytest.param("gpt2", marks=pytest.mark.slow)])
def test_a_float16_graph_holds_the_rounded_vectors_and_takes_and_gives_the_same(
    tiny, one_layer, tmp_path, family
):
    source = one_layer if family == "bert" else tiny(family)
    facts = _patch(source, tmp_path / "out", dtype="float16").onnx
    path = tmp_path / "out" / "onnx" / "model.onnx"
    assert facts["dtype"] == "float16"
    assert 1e-5 < facts["parity"]["largest"] < 2e-2  # it is not float32 by another name
    checkpoint = open_checkpoint(tmp_path / "out")
    for name, values in read_initializers(path, facts["vectors"]).items():
        assert values.dtype == np.float16
        np.testing.assert_array_equal(values, checkpoint.read(name).astype(np.float16))
    stored = [v for v in initializers(onnx.load(path)).values() if v.dtype.kind == "f"]
    assert {v.dtype for v in stored if v.size > 1} == {np.dtype(np.float16)}
    session = onnxruntime.InferenceSession(path)
    assert {i.type for i in session.get_inputs()} == {"tensor(int64)"}
    assert {o.type for o in session.get_outputs()} == {"tensor(float)"}
    assert verify(tmp_path / "out").passed


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bart", "blenderbot-small", "led", "marian", "mvp", "plbart"])
def test_a_model_that_looks_at_its_values_in_float16_is_exported_too(tmp_path, name):
    """Transformers' BART and its kin clamp what is infinite, which a graph cannot find out."""
    save_family(name, tmp_path / "model")
    facts = _patch(tmp_path / "model", tmp_path / "out", dtype="float16").onnx
    assert facts["dtype"] == "float16"
    assert 1e-5 < facts["parity"]["largest"] < 2e-2
    assert bool(torch.isfinite(torch.tensor([1.0, np.inf])).all()) is False  # torch's own again


def test_what_torch_cannot_export_is_one_line(one_layer, tmp_path, capfd, monkeypatch):
    """A layer that looks at its values, as transformers' BART does in float16."""
    layer = transformers.models.bert.modeling_bert.BertIntermediate
    forward = layer.forward

    def looking(self, states):
        return forward(self, states if torch.isfinite(states).all() else 0 * states)

    monkeypatch.setattr(layer, "forward", looking)
    capfd.readouterr()
    with pytest.raises(ExportError, match="leave out `dtype` float16, or use `onnx=False`"):
        _patch(one_layer, tmp_path / "out", dtype="float16", fresh=True)
    assert capfd.readouterr() == ("", "")


def test_a_head_that_no_task_scores_is_told(tmp_path, capsys):
    """Multiple choice: a classifier of one output for each of several texts."""
    transformers.BertForMultipleChoice(_ONE_LAYER).save_pretrained(tmp_path / "model")
    record = _patch(tmp_path / "model", tmp_path / "out")
    assert record.onnx["task"] == "drift"
    assert record.onnx["head_left_out"] == "BertForMultipleChoice"
    capsys.readouterr()
    show_record(record, tmp_path / "out", json=True)
    printed = capsys.readouterr()
    assert json.loads(printed.out)["onnx"]["task"] == "drift"
    assert "declares BertForMultipleChoice, whose head no task scores" in printed.err


@pytest.mark.parametrize(
    ("architecture", "model_type", "left_out", "missing"),
    [
        ("BertForMaskedLM", "bert", False, True),
        ("GPT2LMHeadModel", "gpt2", False, True),
        ("BartForConditionalGeneration", "bart", False, True),
        ("RobertaForSequenceClassification", "roberta", False, True),
        ("BertForMultipleChoice", "bert", True, False),
        ("WhisperForConditionalGeneration", "whisper", True, False),
        ("BertModel", "bert", False, False),
    ],
)
def test_a_declared_head_is_not_there_or_no_task_s(architecture, model_type, left_out, missing):
    config = {"architectures": [architecture], "model_type": model_type}
    family = family_of(model_type)
    found = (architecture if left_out else "", architecture if missing else "")
    assert unscored_head(config, family, "drift") == found
    assert unscored_head(config, family, "mlm") == ("", "")


def test_no_probe_has_another_end_than_its_own(tmp_path):
    """BART's classifier takes the state at the end of the sequence, and refuses two of them."""
    checkpoint = open_checkpoint(save_model("denoising", tmp_path))
    tokenizer = load_tokenizer(tmp_path)
    loaded = load_model(checkpoint)
    for length in (64, 9):
        for feed in make_feeds(loaded, tokenizer, length, 0, "right"):
            ids = feed["input_ids"]
            ends = (ids == tokenizer.sep_token_id).sum(axis=1)
            assert ids.shape[1] <= length
            assert (ends == 1).all()


def test_a_classifier_without_a_padding_token_is_told_where_to_name_it(tmp_path):
    save_head("gpt2, classification", tmp_path / "model")
    edit_json(tmp_path / "model" / "config.json", pad_token_id=...)
    with pytest.raises(ExportError, match=r"config.json has no pad_token_id, by which GPT2For"):
        _patch(tmp_path / "model", tmp_path / "out")


def test_a_text_longer_than_the_model_s_length_is_cut_without_a_word(tmp_path, capfd):
    loaded = load_model(open_checkpoint(save_model("classification", tmp_path)))
    edit_json(tmp_path / "tokenizer_config.json", model_max_length=8)
    tokenizer = load_tokenizer(tmp_path)
    capfd.readouterr()
    feeds = make_feeds(loaded, tokenizer, tokenizer.model_max_length, 0, "right")
    assert max(feed["input_ids"].shape[1] for feed in feeds) == 8
    assert capfd.readouterr().err == ""
