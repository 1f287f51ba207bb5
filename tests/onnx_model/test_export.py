import importlib
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import transformers
from conftest import TINY_FAMILIES

from surgeon import Recipe, make_plan, open_checkpoint, operate
from surgeon.errors import ExportError
from surgeon.onnx_model.parity import check_parity
from surgeon.onnx_model.weights import make_replaceable, read_initializers
from surgeon.scoring.examples import make_batch
from surgeon.torch_model.loading import choose_task

_TASKS = {
    "bert": "mlm",
    "roberta": "mlm",
    "electra": "mlm",
    "electra-discriminator": "drift",
    "mpnet": "mlm",
    "distilbert": "mlm",
    "gpt2": "clm",
}


def _patch(model, output, **fields):
    return operate(make_plan(open_checkpoint(model), Recipe(**fields)), output)


def _initializers(path):
    model = onnx.load(path)
    return {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_onnx_and_pytorch_agree_on_the_patched_weights_of_every_family(tiny, tmp_path, family):
    record = _patch(tiny(family), tmp_path / "out", dims=(3, 9))
    assert record.onnx["task"] == _TASKS[family]
    assert record.onnx["parity"]["largest"] < 1e-4
    auto_class = {
        "mlm": transformers.AutoModelForMaskedLM,
        "clm": transformers.AutoModelForCausalLM,
        "drift": transformers.AutoModel,
    }[record.onnx["task"]]
    model = auto_class.from_pretrained(tmp_path / "out").eval()
    session = onnxruntime.InferenceSession(tmp_path / "out" / "onnx" / "model.onnx")
    rng = np.random.default_rng(1)
    for lengths in ([1], [3, 3], [2, 40, 17]):
        sequences = [rng.integers(5, 40, size=length).tolist() for length in lengths]
        batch = make_batch(sequences, record.onnx["inputs"], 0)
        with torch.no_grad():
            expected = model(**{k: torch.from_numpy(v) for k, v in batch.items()})
        (got,) = session.run([record.onnx["output"]], dict(batch))
        real = batch["attention_mask"].astype(bool)
        np.testing.assert_allclose(
            got[real], expected[record.onnx["output"]].numpy()[real], atol=1e-4
        )


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_equal_initializers_stay_apart_so_that_only_the_planned_vectors_differ(tmp_path, family):
    """A fresh model has all gains 1 and all biases 0: the exporter would merge them."""
    model_class, config = TINY_FAMILIES[family]
    torch.manual_seed(0)
    fresh = model_class(config)
    biases = [p for n, p in fresh.named_parameters() if n.endswith("bias")]
    assert biases
    assert all((bias == 0).all() for bias in biases)
    fresh.save_pretrained(tmp_path / "fresh")
    untouched = _patch(tmp_path / "fresh", tmp_path / "a", dims=(3,), mode="scale", factor=1.0)
    patched = _patch(tmp_path / "fresh", tmp_path / "b", dims=(3,), params=("gain",), layers=(1,))
    assert untouched.parameters_changed == 0
    before, after = (_initializers(tmp_path / out / "onnx" / "model.onnx") for out in "ab")
    vectors = set(patched.onnx["vectors"])
    assert vectors <= before.keys()
    assert {n: v.shape for n, v in before.items()} == {n: v.shape for n, v in after.items()}
    differing = {name for name in before if not np.array_equal(before[name], after[name])}
    assert differing == {edit.tensor for edit in patched.edits}
    assert len(differing) == 1


def test_every_editable_vector_is_used_by_the_graph_under_its_checkpoint_name(minilm_patched):
    model = onnx.load(minilm_patched / "onnx" / "model.onnx")
    used = {name for node in model.graph.node for name in node.input}
    checkpoint = open_checkpoint(minilm_patched)
    names = {n for site in checkpoint.sites for n in (site.gain, site.bias)}
    assert len(names) == 2 * (6 + 6 + 1)
    assert names <= used
    stored = read_initializers(minilm_patched / "onnx" / "model.onnx", names)
    for name in names:
        assert stored[name].tobytes() == checkpoint.read(name).tobytes()


def test_checkpoint_names_with_gamma_and_no_prefix_are_kept_in_onnx(tiny, tmp_path):
    from conftest import rename_tensors

    def rename(name):
        name = name.removeprefix("bert.")
        return name.replace("LayerNorm.weight", "LayerNorm.gamma") if "output" in name else name

    rename_tensors(tiny("bert"), tmp_path / "old", rename)
    record = _patch(tmp_path / "old", tmp_path / "out", dims=(3,))
    assert "encoder.layer.1.output.LayerNorm.gamma" in record.onnx["vectors"]
    stored = read_initializers(tmp_path / "out" / "onnx" / "model.onnx", record.onnx["vectors"])
    assert stored["encoder.layer.1.output.LayerNorm.gamma"][3] == 0


def test_a_half_precision_checkpoint_is_exported_in_float32_with_equal_vectors(tiny, tmp_path):
    model = transformers.AutoModelForMaskedLM.from_pretrained(tiny("bert"))
    model.to(torch.bfloat16).save_pretrained(tmp_path / "half")
    record = _patch(tmp_path / "half", tmp_path / "out", dims=(3,), mode="scale", factor=0.3)
    checkpoint = open_checkpoint(tmp_path / "out")
    names = record.onnx["vectors"]
    for name, values in read_initializers(tmp_path / "out/onnx/model.onnx", names).items():
        np.testing.assert_array_equal(values, checkpoint.read(name).astype(np.float32))


def test_the_graph_holds_no_path_of_the_machine_that_made_it(minilm_patched):
    model = onnx.load(minilm_patched / "onnx" / "model.onnx")
    assert len(model.graph.node) > 100
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert not model.metadata_props
    assert not model.graph.metadata_props
    text = str([model.graph.node, model.graph.input, model.graph.output, model.functions])
    assert "site-packages" not in text
    assert ".py" not in text


def test_a_run_may_replace_a_vector_and_the_next_has_the_default_again(minilm_patched):
    path = minilm_patched / "onnx" / "model.onnx"
    name = "encoder.layer.5.output.LayerNorm.bias"
    model = onnx.load(path)
    make_replaceable(model, [name], "")
    session = onnxruntime.InferenceSession(model.SerializeToString())
    batch = make_batch([[101, 2003, 102]], ("input_ids", "attention_mask", "token_type_ids"), 0)
    (default,) = session.run(None, dict(batch))
    shifted = read_initializers(path, [name])[name] + np.float32(1)
    (changed,) = session.run(None, {**batch, name: shifted})
    (again,) = session.run(None, dict(batch))
    np.testing.assert_allclose(changed, default + 1, atol=1e-5)
    np.testing.assert_array_equal(again, default)


def test_a_graph_that_computes_something_else_fails_the_check(minilm_patched):
    batch = make_batch([[101, 2003, 102]], ("input_ids", "attention_mask", "token_type_ids"), 0)
    path = minilm_patched / "onnx" / "model.onnx"
    session = onnxruntime.InferenceSession(path)

    def off(batch, by):
        return session.run(None, dict(batch))[0] + np.float32(by)

    assert check_parity(path, lambda b: off(b, 0), [batch]).largest == 0
    for by in (0.01, float("nan")):
        with pytest.raises(ExportError, match="differs from PyTorch"):
            check_parity(path, lambda b, by=by: off(b, by), [batch])


def test_a_failed_check_fails_the_command_and_leaves_nothing(tiny, tmp_path, monkeypatch):
    export = importlib.import_module("surgeon.onnx_model.export")
    reference = export._reference
    monkeypatch.setattr(export, "_reference", lambda *given: reference(*given) + 0.01)
    with pytest.raises(ExportError, match="--no-onnx"):
        _patch(tiny("bert"), tmp_path / "out", dims=(3,))
    assert list(tmp_path.iterdir()) == []


def test_weights_that_the_model_class_does_not_find_are_an_error(tiny, tmp_path):
    from safetensors.torch import load_file, save_file

    shutil.copytree(tiny("bert"), tmp_path / "part")
    tensors = load_file(tmp_path / "part" / "model.safetensors")
    del tensors["bert.encoder.layer.1.intermediate.dense.weight"]
    save_file(tensors, tmp_path / "part" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ExportError, match=r"no weights for .*layer\.1\.intermediate"):
        _patch(tmp_path / "part", tmp_path / "out", dims=(3,))
    assert not (tmp_path / "out").exists()


def test_the_task_follows_the_head_that_is_there(tiny, antiberty, iglm_s, minilm):
    tasks = {f: choose_task(open_checkpoint(tiny(f))) for f in TINY_FAMILIES}
    assert tasks == _TASKS
    assert choose_task(open_checkpoint(antiberty)) == "mlm"  # its class is unknown, its head not
    assert choose_task(open_checkpoint(iglm_s)) == "clm"
    assert choose_task(open_checkpoint(minilm)) == "drift"
