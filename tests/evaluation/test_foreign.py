"""An ONNX file from elsewhere, patched and evaluated: as the model's own weights are."""

import functools
import json
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import transformers
from artifacts import edit_json, edit_record, patch_onnx, texts_of
from onnx import TensorProto, helper, numpy_helper
from onnx_exports import TOKENS, export, fuse, store_as
from task_models import MODELS, each, save_model, word_tokenizer
from tiny import GPT, TEXT, XLNET, make_unequal

from surgeon import evaluate, open_onnx, save_evaluation, verify, write_report
from surgeon.cli import run
from surgeon.edit.restore import open_source
from surgeon.errors import CheckpointError, EvaluationError
from surgeon.evaluation.artifact import open_artifact
from surgeon.evaluation.runner import open_runner
from surgeon.evaluation.workload import prepare
from surgeon.tasks.examples import Example, batch_examples
from surgeon.tasks.registry import EvaluationSettings
from surgeon.tasks.task import Variant, observe
from surgeon.text import built_in_sample

DIMS = (3, 8)
_LINES = sorted(built_in_sample().lines, key=len)[:24]
_TEXTS = texts_of(_LINES)
_OWN = {"vocab_size": 800, "attn_implementation": "eager"}
_SMALL = {**TEXT, "num_hidden_layers": 1, **_OWN}
_BERT = transformers.BertConfig(**_SMALL, pad_token_id=0)
_THREE = {0: "CONTRADICTION", 1: "Neutral", 2: "entailment"}
_LABELS = ("entailment", "Neutral", "CONTRADICTION")
# Labelled rows of each task that takes some.
_ROWS = {
    "classification": [{"text": line, "label": _LABELS[n % 3]} for n, line in enumerate(_LINES)],
    "regression": [{"text": line, "label": n / 10} for n, line in enumerate(_LINES)],
    "token-classification": [
        {"tokens": line.split()[:6], "ner_tags": ["O"] * len(line.split()[:6])} for line in _LINES
    ],
    "question-answering": [
        {"question": "What is it?", "context": line, "answers": [line.split()[0]]}
        for line in _LINES
    ],
}


def _made(kind, config):
    return make_unequal(kind, config, seed=1, by=0.3).eval()


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Give a model directory with a tokenizer, made once."""
    folder = tmp_path_factory.mktemp("sources")
    return functools.cache(lambda name: save_model(name, folder / name))


def _data(name, folder):
    if name not in _ROWS:
        return _TEXTS
    path = folder / "data.jsonl"
    path.write_text("\n".join(map(json.dumps, _ROWS[name])))
    return path


def _patch_file(path, output, pattern=None):
    patch_onnx(path, output, pattern, dims=DIMS)
    return output


def _unpatched(artifact, folder):
    """Make the folder that an export of the source would be, without exporting again."""
    shutil.copytree(artifact, folder, ignore=shutil.ignore_patterns("surgeon", "*.safetensors"))
    baseline = open_artifact(artifact).baseline

    def put_back(model):
        for tensor in model.graph.initializer:
            if tensor.name in baseline:
                tensor.CopyFrom(numpy_helper.from_array(baseline[tensor.name], tensor.name))

    _change(folder / "onnx", put_back)
    return folder / "onnx/model.onnx"


def _document(result):
    """Return what two evaluations must agree on."""
    document = result.to_json()
    return {key: value for key, value in document.items() if key not in ("model", "warnings")}


_EDITED = [name for name in MODELS if name != "clm, of joined experts"]  # test_experts


@pytest.mark.parametrize("name", each(*_EDITED, slow=("rtd", *_ROWS)))
def test_a_patched_onnx_file_is_evaluated_as_the_patched_weights_are(
    source, patched_once, tmp_path, name
):
    own = patched_once(source(name), *DIMS)
    file = _patch_file(_unpatched(own, tmp_path / "exported"), tmp_path / "out")
    ours, theirs = open_artifact(own).facts, open_artifact(file).facts
    for what in ("task", "inputs", "output", "outputs", "labels", "decoder_start_id", "dtype"):
        assert getattr(theirs, what) == getattr(ours, what), what
    assert theirs.max_length == ours.max_length
    assert theirs.tokenizer == ours.tokenizer
    data = _data(name, tmp_path)
    expected, found = (evaluate(out, texts=data, controls=3) for out in (own, file))
    assert _document(found) == _document(expected)
    assert found.delta != 0 or name in _ROWS  # a few labels may all stay as they were
    assert verify(file).passed


@pytest.mark.parametrize(
    ("name", "how"), [("mlm", "legacy-12"), ("mlm", "legacy-17"), ("clm", "legacy-14")]
)
def test_the_exports_of_others_score_as_pytorch_does(source, patched_once, tmp_path, name, how):
    """Of old opsets, with one output of any name."""
    folder = tmp_path / "exported"
    _export(source(name), folder, name, how)
    out = _patch_file(folder / "model.onnx", tmp_path / "out")
    own = patched_once(source(name), *DIMS)
    result, expected = (evaluate(one, texts=_TEXTS, controls=1) for one in (out, own))
    assert result.task == name
    values = [(one.baseline.value, one.patched.value, one.delta) for one in (result, expected)]
    assert values[0] == pytest.approx(values[1], abs=1e-5)


def _export(source, folder, name, how):
    path = export(_made(*MODELS[name]), folder / "model.onnx", how)
    for file in source.glob("*.json"):
        shutil.copy(file, folder)
    return path


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """Give a copy of what is exported into a folder, once for a key."""
    folder, made = tmp_path_factory.mktemp("exports"), {}

    def copy(key, make, target):
        if key not in made:
            made[key] = folder / str(len(made))
            make(made[key])
        return shutil.copytree(made[key], target)

    return copy


@pytest.fixture(scope="module")
def mlm_at(source, copied):
    """Give an exported masked model in a folder."""
    return lambda target: copied(
        "mlm", lambda folder: _export(source("mlm"), folder, "mlm", "legacy-14"), target
    )


def _export_made(model, folder, how="legacy-14"):
    """Export a model with its configuration and a tokenizer beside it."""
    path = export(model, folder / "model.onnx", how)
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return path


def test_a_fused_graph_is_evaluated(mlm, plain, tmp_path):
    fused = fuse(mlm / "model.onnx", tmp_path / "fused/model.onnx")
    for file in mlm.glob("*.json"):
        shutil.copy(file, fused.parent)
    result = evaluate(_patch_file(fused, tmp_path / "out"), texts=_TEXTS, controls=3)
    assert result.delta == pytest.approx(plain.delta, abs=1e-4)
    assert [c.dims for c in result.controls] == [c.dims for c in plain.controls]


@pytest.fixture
def mlm(mlm_at, tmp_path):
    """Give an exported masked model's folder, to be changed."""
    return mlm_at(tmp_path / "changed")


def _change(folder, change):
    model = onnx.load(folder / "model.onnx")
    change(model)
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


@pytest.fixture(scope="module")
def plain(mlm_at, tmp_path_factory):
    """Give what the patched masked model scores, as it was exported."""
    folder = tmp_path_factory.mktemp("plain")
    path = mlm_at(folder / "exported") / "model.onnx"
    return evaluate(_patch_file(path, folder / "out"), texts=_TEXTS, controls=3)


def _cast_input(graph, name, kind):
    (value,) = (v for v in graph.input if v.name == name)
    value.type.tensor_type.elem_type = kind
    for node in graph.node:
        node.input[:] = [f"{name}.cast" if n == name else n for n in node.input]
    cast = helper.make_node("Cast", [name], [f"{name}.cast"], to=TensorProto.INT64)
    graph.node.insert(0, cast)


def _narrow_inputs(model):
    for name in ("input_ids", "attention_mask"):
        _cast_input(model.graph, name, TensorProto.INT32)
    value = helper.make_tensor_value_info("position_ids", TensorProto.INT64, ["b", "s"])
    model.graph.input.append(value)  # read by nothing here, and fed all the same


def _hold_in_constants(model):
    graph = model.graph
    for tensor in list(graph.initializer):
        if tensor.name.endswith("output.LayerNorm.weight") and "attention" not in tensor.name:
            value = numpy_helper.from_array(numpy_helper.to_array(tensor), "")
            graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=value))
            graph.initializer.remove(tensor)


def _store_norms_in(kind, model):
    norms = {t.name for t in model.graph.initializer if ".output.LayerNorm." in t.name}
    store_as(model, kind, norms)


def _fix_batch(model):
    for value in model.graph.input:
        if value.name in ("input_ids", "attention_mask"):
            value.type.tensor_type.shape.dim[0].dim_value = 1


def _float_mask_of_ir_version_3(model):
    _cast_input(model.graph, "attention_mask", TensorProto.FLOAT)
    for tensor in model.graph.initializer:  # as files of that version list them
        value = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        model.graph.input.append(value)
    model.ir_version = 3


_KEY = "past_key_values.0.key"


def _take_a_cache(model):
    """Add to the output the sum of past keys, of which a text alone has none."""
    graph = model.graph
    (output,) = graph.output
    kind, shape = output.type.tensor_type.elem_type, ["batch", 2, "past", 8]
    graph.input.append(helper.make_tensor_value_info(_KEY, kind, shape))
    for node in graph.node:
        node.output[:] = ["without" if n == output.name else n for n in node.output]
    graph.initializer.append(numpy_helper.from_array(np.array([2, 3]), "axes"))
    graph.node.extend([
        helper.make_node("ReduceSum", [_KEY, "axes"], ["sums"]),
        helper.make_node("ReduceMax", ["sums"], ["most"], axes=[1], keepdims=0),
        helper.make_node("Add", ["without", "most"], [output.name]),
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("change", "tolerance"),
    [
        (_take_a_cache, 1e-9),
        (_narrow_inputs, 1e-9),
        (_hold_in_constants, 1e-9),
        (functools.partial(_store_norms_in, TensorProto.FLOAT16), 1e-3),
        (functools.partial(_store_norms_in, TensorProto.BFLOAT16), 1e-2),
        (_fix_batch, 1e-6),
        (_float_mask_of_ir_version_3, 1e-9),
    ],
)
def test_a_graph_of_another_form_has_the_same_scores(mlm, plain, tmp_path, change, tolerance):
    out = _patch_file(_change(mlm, change), tmp_path / "out")
    result = evaluate(out, texts=_TEXTS, controls=3)
    assert result.delta == pytest.approx(plain.delta, abs=tolerance)
    for found, expected in zip(result.controls, plain.controls, strict=True):
        assert found.value == pytest.approx(expected.value, rel=1e-6, abs=tolerance)
    positions = ("position_ids",) if change is _narrow_inputs else ()
    assert open_artifact(out).facts.inputs == ("input_ids", "attention_mask", *positions)


def test_positions_are_those_of_the_tokens_themselves():
    examples = [Example((5, 6, 7)), Example((8,))]
    batch = batch_examples(examples, ("input_ids", "position_ids"), 0, "left")
    np.testing.assert_array_equal(batch["position_ids"], [[0, 1, 2], [0, 0, 0]])


@pytest.mark.slow
def test_a_graph_in_float16_is_evaluated(source, patched_once, tmp_path, done):
    folder = tmp_path / "exported"
    done("export", source("mlm"), "-o", folder, "--dtype", "float16")
    out = _patch_file(folder / "onnx/model.onnx", tmp_path / "out")
    assert open_artifact(out).facts.dtype == "float16"
    narrow = evaluate(out, texts=_TEXTS, controls=3)
    wide = evaluate(patched_once(source("mlm"), *DIMS), texts=_TEXTS, controls=3)
    assert narrow.delta == pytest.approx(wide.delta, abs=0.02)

    def overflow(model):
        name = "0.intermediate.dense.bias"
        (bias,) = (t for t in model.graph.initializer if t.name.endswith(name))
        values = np.full(bias.dims, np.inf, np.float16)
        bias.CopyFrom(numpy_helper.from_array(values, bias.name))

    _patch_file(_change(folder / "onnx", overflow), tmp_path / "overflowing")
    with pytest.raises(EvaluationError, match=r"baseline: .* is not finite.* ends at 65504: take"):
        evaluate(tmp_path / "overflowing", texts=_TEXTS)


def test_sentence_embeddings_are_compared_by_their_tokens(source, patched_once, tmp_path):
    """Optimum exports a sentence-transformers model with these outputs."""
    own = patched_once(source("drift"), *DIMS)

    def rename(model):
        graph = model.graph
        (value,) = graph.output
        for node in graph.node:
            node.output[:] = ["token_embeddings" if n == value.name else n for n in node.output]
        value.name = "token_embeddings"
        pooled = helper.make_node("ReduceMean", ["token_embeddings"], ["sentence_embedding"])
        graph.node.append(pooled)
        shape = helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, None)
        graph.output.append(shape)

    path = _change(_unpatched(own, tmp_path / "exported").parent, rename)
    result = evaluate(_patch_file(path, tmp_path / "out"), texts=_TEXTS, controls=3)
    expected = evaluate(own, texts=_TEXTS, controls=3)
    assert (result.task, result.delta) == ("drift", expected.delta)


def _add_input(name, dims=("b", "s")):
    value = helper.make_tensor_value_info(name, TensorProto.INT64, dims)
    return lambda model: model.graph.input.append(value)


def _fix_length(model):
    (value,) = (v for v in model.graph.input if v.name == "input_ids")
    value.type.tensor_type.shape.dim[1].dim_value = 16


def _second_output(model):
    value = helper.make_tensor_value_info("attention_mask", TensorProto.INT64, None)
    model.graph.output.append(value)


def _config(**changes):
    """Change the configuration beside a graph, and the graph not at all."""
    return lambda folder: edit_json(folder / "config.json", **changes)


def _graph(change):
    return lambda folder: _change(folder, change)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (_graph(_add_input(_KEY, ("b", 2, "past", "width"))), f"takes {_KEY}.*without its cache"),
        (_graph(_add_input("pixel_values")), "takes pixel_values, which evaluation does not feed"),
        (_graph(_fix_length), "its input_ids has a fixed length of 16; export the model with dyna"),
        (_graph(_second_output), "gives out, attention_mask, and config.json does not say"),
        (_config(architectures=None), "config.json does not say"),
        (_config(architectures=["BertForNextSentencePrediction"]), "does not say"),
        (_config(architectures="BertForMaskedLM"), "architectures is not a list"),
        (_config(architectures=["BertForSequenceClassification"], id2label={"a": "b"}), "id2label"),
    ],
)
def test_a_graph_that_cannot_be_fed_or_told_is_refused(mlm, tmp_path, change, complaint):
    change(mlm)
    out = _patch_file(mlm / "model.onnx", tmp_path / "out")
    with pytest.raises(EvaluationError, match=complaint):
        evaluate(out, texts=_TEXTS)


def test_the_next_step_is_eval_if_the_files_for_it_are_there(mlm, tmp_path, done):
    for what, out in (("eval", tmp_path / "with"), ("verify", tmp_path / "without")):
        told = done("patch", mlm / "model.onnx", "--dims", "3", "-o", out).out
        assert told.splitlines()[-1] == f"Next: surgeon {what} {out}"
        (mlm / "tokenizer.json").unlink(missing_ok=True)


def test_without_a_tokenizer_the_error_says_which_files_to_add(mlm, tmp_path, refused):
    (mlm / "tokenizer.json").unlink()
    out = _patch_file(mlm / "model.onnx", tmp_path / "out")
    refused("eval", out, says="no tokenizer.json in it; put the model's own beside the ONNX")


def test_the_patched_file_gives_what_the_evaluation_calls_patched(mlm, tmp_path):
    """The variant of the session is the file as onnxruntime runs it elsewhere."""
    opened = open_artifact(_patch_file(mlm / "model.onnx", tmp_path / "out"))
    work = prepare(opened, EvaluationSettings(), _TEXTS)
    task, example = work.task, work.examples[0]
    ids = np.array([example.ids])
    alone = onnxruntime.InferenceSession(opened.model_path)
    (logits,) = alone.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
    scored, labels = torch.tensor(logits[0][example.positions]), torch.tensor(example.labels)
    loss = torch.nn.functional.cross_entropy(scored, labels, reduction="sum")
    runner = open_runner(opened, task)
    losses = {
        dims: task.scores(observe(runner, Variant("it", dims), [example]), work.settings)
        for dims in (opened.record.dims, ())
    }
    losses = {dims: scores[task.metric].value for dims, scores in losses.items()}
    assert losses[opened.record.dims] == pytest.approx(loss.item() / len(labels), abs=1e-4)
    assert abs(losses[()] - losses[opened.record.dims]) > 1e-3


@pytest.mark.parametrize("pattern", [None, r".*layer\.\d+\.output\.LayerNorm.*"])
def test_the_report_of_a_patched_file_shows_its_source(mlm, tmp_path, pattern):
    source = open_onnx(mlm / "model.onnx", pattern).checkpoint
    out = _patch_file(mlm / "model.onnx", tmp_path / "out", pattern)
    save_evaluation(evaluate(out, texts=_TEXTS, controls=3), out)
    before = open_source(out)
    assert [site.gain for site in before.sites] == [site.gain for site in source.sites]
    for site in source.sites:
        np.testing.assert_array_equal(before.read(site.gain), source.read(site.gain))
    page = tmp_path / "report.html"
    write_report(out, page)
    assert "The source by its weights" in page.read_text()


_GPT2 = {**GPT, "n_layer": 1, **_OWN, "id2label": _THREE}
_CLASSIFIERS = {
    "xlnet": ("XLNet", {**XLNET, "vocab_size": 800, "id2label": _THREE}),
    # Without a padding token it classifies by the last position, be it padding or not.
    "gpt2": ("GPT2", _GPT2),
    "gpt2, with a padding token": ("GPT2", {**_GPT2, "pad_token_id": 0}),
}


@pytest.mark.parametrize("name", _CLASSIFIERS)
def test_a_classifier_s_scores_do_not_depend_on_what_a_text_is_batched_with(
    tmp_path, name, monkeypatch
):
    stem, settings = _CLASSIFIERS[name]
    config = getattr(transformers, f"{stem}Config")(**settings)
    model = _made(getattr(transformers, f"{stem}ForSequenceClassification"), config)
    if name == "gpt2":  # it takes no batch in PyTorch either
        monkeypatch.setattr("onnx_exports.TOKENS", tuple(t[:1] for t in TOKENS))
    out = _patch_file(_export_made(model, tmp_path / "model"), tmp_path / "out")
    data = _data("classification", tmp_path)
    many, one = (evaluate(out, texts=data, controls=3, batch_size=size) for size in (None, 1))
    for scored, alone in ((many.baseline, one.baseline), (many.patched, one.patched)):
        assert scored.value == alone.value
        assert scored.others == pytest.approx(alone.others, abs=1e-5)
    facts = open_artifact(out).facts
    assert facts.padding == ("left" if name == "xlnet" else "right")
    assert facts.one_at_a_time == (name == "gpt2")
    assert facts.one_at_a_time == ("each was run alone" in " ".join(many.warnings))
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    tokenizer = word_tokenizer()
    with torch.no_grad():
        inputs = [tokenizer(row["text"], return_tensors="pt").input_ids for row in rows]
        guesses = [_THREE[int(model(input_ids=ids).logits[0].argmax())] for ids in inputs]
    wrong = sum(guess != row["label"] for guess, row in zip(guesses, rows, strict=True))
    assert many.baseline.value == pytest.approx(wrong / len(rows))


def test_of_a_graph_quantized_by_the_batch_each_text_is_run_alone(mlm, tmp_path):
    from onnxruntime.quantization import quantize_dynamic

    plain = mlm / "model.onnx"
    plain.rename(mlm / "plain.onnx")
    quantize_dynamic(mlm / "plain.onnx", plain)
    (mlm / "plain.onnx").unlink()
    out = _patch_file(plain, tmp_path / "out")
    many, one = (evaluate(out, texts=_TEXTS, controls=3, batch_size=size) for size in (None, 1))
    assert many.patched == one.patched
    assert "each was run alone" in " ".join(many.warnings)
    with pytest.raises(EvaluationError, match="is quantized already"):
        evaluate(out, texts=_TEXTS, quantize="int8")


def test_weights_of_4_bits_are_quantized_already(mlm, tmp_path):
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(onnx.load(mlm / "model.onnx"), block_size=16)
    quantizer.process()
    quantizer.model.save_model_to_file(str(mlm / "model.onnx"))
    out = _patch_file(mlm / "model.onnx", tmp_path / "out")
    with pytest.raises(EvaluationError, match=r"quantized already \(it has MatMulNBits"):
        evaluate(out, texts=_TEXTS, quantize="int8")


def test_a_graph_of_which_the_norms_alone_are_in_float32_is_not_quantized(mlm, tmp_path):
    """Its products would stay in float16, and int8 seem to cost next to nothing."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    path, blocked = mlm / "model.onnx", ["ReduceMean", "Sub", "Pow", "Sqrt", "Div", "Mul", "Add"]
    half = convert_float_to_float16(onnx.load(path), keep_io_types=True, op_block_list=blocked)
    onnx.save(half, path)
    out = _patch_file(path, tmp_path / "out")
    assert open_artifact(out).facts.dtype == "float32"
    with pytest.raises(EvaluationError, match="computes in float16 and onnxruntime quantizes"):
        evaluate(out, texts=_TEXTS, quantize="int8")


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        ({"0": "a", "1": "b"}, "gives 3 values a text or token, and id2label .* names 2 labels"),
        ({str(n): "abcd"[n] for n in range(4)}, "gives 3 values .* names 4 labels"),
        ({"0": "a", "1": "b", "9": "c"}, "does not name the labels 0 to 2"),
        (["a", "b", "c"], "id2label is not an object of labels by number"),
    ],
)
def test_labels_that_are_not_the_graph_s_are_refused(copied, tmp_path, names, complaint):
    config = transformers.BertConfig(**_SMALL, id2label=_THREE)
    model = _made(transformers.BertForSequenceClassification, config)
    folder = copied("labels", lambda folder: _export_made(model, folder), tmp_path / "model")
    edit_json(folder / "config.json", id2label=names)
    out = _patch_file(folder / "model.onnx", tmp_path / "out")
    with pytest.raises(EvaluationError, match=complaint):
        evaluate(out, texts=_data("classification", tmp_path))


def test_the_two_labels_that_transformers_does_not_write_are_known(tmp_path):
    model = _made(transformers.BertForSequenceClassification, _BERT)
    path = _export_made(model, tmp_path / "model")
    assert "id2label" not in json.loads((tmp_path / "model/config.json").read_text())
    out = _patch_file(path, tmp_path / "out")
    assert open_artifact(out).facts.labels == ("LABEL_0", "LABEL_1")


def test_positions_that_begin_after_the_padding_token_cannot_be_fed(tmp_path):
    config = transformers.RobertaConfig(**_SMALL, pad_token_id=1)
    path = _export_made(_made(transformers.RobertaForMaskedLM, config), tmp_path / "model")
    plain = _patch_file(path, tmp_path / "plain")
    assert open_artifact(plain).facts.max_length == 62
    out = _patch_file(_change(path.parent, _add_input("position_ids")), tmp_path / "out")
    with pytest.raises(EvaluationError, match="takes position_ids, which evaluation does not feed"):
        evaluate(out, texts=_TEXTS)


@pytest.mark.parametrize(
    ("kind", "changes", "complaint"),
    [
        ("BertForNextSentencePrediction", {}, "config.json does not say"),
        ("BertForSequenceClassification", {"architectures": ["BertForMaskedLM"]}, "shape .2. for"),
        ("BertModel", {"architectures": ["BertForMaskedLM"]}, "gives 16 values a token, and a voc"),
        ("BertModel", {"architectures": ["BertForMaskedLM"], "vocab_size": ...}, "at least"),
        ("BertForMaskedLM", {"architectures": ["BertForSequenceClassification"]}, "takes one of"),
        ("BertForMaskedLM", {"max_position_embeddings": ...}, "write max_position_embeddings"),
    ],
)
def test_an_output_that_is_not_what_is_declared_is_refused_before_anything_is_scored(
    copied, tmp_path, capfd, kind, changes, complaint
):
    model = _made(getattr(transformers, kind), _BERT)
    folder = copied(kind, lambda folder: _export_made(model, folder), tmp_path / "model")
    edit_json(folder / "config.json", **changes)
    out = _patch_file(folder / "model.onnx", tmp_path / "out")
    (tmp_path / "long.txt").write_text(" ".join(_LINES))
    capfd.readouterr()
    with pytest.raises(EvaluationError, match=complaint):
        evaluate(out, texts=tmp_path / "long.txt")
    assert "onnxruntime" not in capfd.readouterr().err  # it prints nothing of its own


def test_the_mask_token_is_told_by_its_usual_name_where_nothing_else_tells(mlm, tmp_path):
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        (mlm / name).unlink(missing_ok=True)
    out = _patch_file(mlm / "model.onnx", tmp_path / "out")
    tokenizer = open_artifact(out).facts.tokenizer
    assert tokenizer.mask_id == word_tokenizer().mask_token_id
    assert evaluate(out, texts=_TEXTS, controls=1).task == "mlm"


@pytest.mark.parametrize("declared", [10**6, 10**30, True, -1, "0"])
def test_a_padding_token_that_is_none_is_not_fed(mlm, tmp_path, declared):
    edit_json(mlm / "config.json", pad_token_id=declared)
    out = _patch_file(mlm / "model.onnx", tmp_path / "out")
    assert open_artifact(out).facts.tokenizer.pad_id == 0


@pytest.mark.parametrize(
    "name", ["model.onnx", "config.json", "tokenizer.json", "tokenizer_config.json"]
)
def test_a_file_changed_after_the_patch_is_not_evaluated(mlm, tmp_path, name):
    out = _patch_file(mlm / "model.onnx", tmp_path / "out")
    with (out / name).open("ab") as file:
        file.write(b"\n")
    with pytest.raises(EvaluationError, match=f"{name}: is not the file that the record describes"):
        evaluate(out, texts=_TEXTS)


_MISFIT = "does not fit the weights; the artifact is damaged"
_DAMAGED = "record.json: damaged"


@pytest.mark.parametrize(
    ("edit", "whole", "complaint"),
    [
        ({"tensor": "nope"}, {}, _MISFIT),
        ({"axis": 3}, {}, _MISFIT),
        ({"dims": [3]}, {}, _DAMAGED),
        ({}, {"dims": [3, 99]}, _DAMAGED),
        ({}, {"hidden_size": 10**9}, _MISFIT),
    ],
)
def test_a_damaged_record_is_refused_in_one_line(mlm, tmp_path, refused, edit, whole, complaint):
    out = _patch_file(mlm / "model.onnx", tmp_path / "out")
    edit_record(out, lambda record: record["edits"][0].update(edit) or record.update(whole))
    refused("eval", out, says=complaint)
    if "hidden_size" not in whole:  # on which no edit depends
        assert run(["verify", str(out)]) == (2 if complaint == _DAMAGED else 1)
        with pytest.raises(CheckpointError):
            open_source(out)
