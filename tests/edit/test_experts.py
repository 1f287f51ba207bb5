"""Mixtures of experts: a layer ends with the sum of what all of its experts give."""

import numpy as np
import onnx
import pytest
import torch
from artifacts import assert_undone, edit_tensors, patch, patch_onnx, stored_tensors, texts_of
from families import save_family
from task_models import causal_loss, save_model
from torch._subclasses.fake_tensor import FakeTensorMode

from surgeon import evaluate, export, open_checkpoint, open_onnx, rank_by_layernorm
from surgeon.errors import CheckpointError, ExportError
from surgeon.onnx.experts import fold_experts
from surgeon.onnx.weights import read_initializers
from surgeon.ranking.zscores import read_zscores
from surgeon.text import built_in_sample
from surgeon.torch_model.loading import load_model

_TWO_BY_EIGHT = [(layer, expert) for layer in range(2) for expert in range(8)]


def test_a_layer_s_distances_are_those_of_all_its_experts_together(tmp_path):
    save_family("qwen2_moe", tmp_path)
    found = read_zscores(open_checkpoint(tmp_path))
    stored = stored_tensors(tmp_path)
    assert found.rows == ("0", "1")
    path = "model.layers.1.mlp"
    modules = ("experts.0", "experts.1", "shared_expert")
    rows = torch.cat([stored[f"{path}.{m}.down_proj.weight"] for m in modules], dim=1)
    norms = np.linalg.norm(rows.numpy().astype(np.float64), axis=1)
    np.testing.assert_allclose(found.gain[1], (norms - norms.mean()) / norms.std(), atol=1e-9)
    assert found.bias is None


def test_experts_in_one_tensor_are_ranked_as_those_in_several(tmp_path):
    save_family("qwen2_moe", tmp_path / "apart")
    save_family("qwen2_moe", tmp_path / "joined")
    edit_tensors(tmp_path / "joined", lambda tensors: _in_one_tensor(tensors, "down_proj"))
    apart, joined = (read_zscores(open_checkpoint(tmp_path / n)) for n in ("apart", "joined"))
    np.testing.assert_allclose(joined.gain, apart.gain, atol=1e-12)


def test_experts_in_one_tensor_are_read_whichever_way_round_they_are(tmp_path):
    save_family("qwen3_vl_moe_text", tmp_path)
    found = []
    for _ in range(2):
        opened = open_checkpoint(tmp_path)
        axes = {site.axis for site in opened.sites if site.role == "output"}
        found.append((axes, read_zscores(opened).gain))
        edit_tensors(tmp_path, _turn_experts)
    assert [axes for axes, _ in found] == [{1}, {2}]
    np.testing.assert_allclose(found[0][1], found[1][1], atol=1e-12)


def _turn_experts(tensors):
    for name in [name for name in tensors if ".experts." in name]:
        tensors[name] = tensors[name].transpose(1, 2).contiguous()


@pytest.fixture
def change(tmp_path):
    """Save a mixture with its tensors changed, and return its folder."""

    def make(name, changed):
        save_family(name, tmp_path)
        edit_tensors(tmp_path, changed)
        return tmp_path

    return make


def _without(part):
    return lambda tensors: {k: v for k, v in tensors.items() if part not in k}


def _in_one_tensor(tensors, called="w2"):
    path = "model.layers.1.mlp.experts"
    parts = [tensors.pop(f"{path}.{number}.down_proj.weight") for number in range(2)]
    return {**tensors, f"{path}.{called}": torch.stack(parts)}


def _both(tensors):
    spare = tensors["model.layers.0.mlp.down_proj.weight"].clone()
    return {**tensors, "model.layers.1.mlp.down_proj.weight": spare}


@pytest.mark.parametrize(
    ("name", "changed", "complaint"),
    [
        ("qwen3_moe", _without("layers.0.mlp.experts.0."), "no layers.0.mlp.experts.0.down_proj, "),
        ("qwen3_moe", _without("layers.1.mlp.experts.1."), "no layers.1.mlp.experts.1.down_proj, "),
        ("qwen3_moe", _without("layers.0.mlp."), "no layers.0.mlp.down_proj or layers.0.mlp.exper"),
        ("deepseek_v2", _without("layers.0.mlp."), "though other layers do: the checkpoint is inc"),
        ("hunyuan_v1_moe", _without("0.mlp.shared_mlp"), "no layers.0.mlp.shared_mlp.down_proj, "),
        ("hunyuan_v1_moe", _without("1.mlp.experts"), "no layers.1.mlp.experts.0.down_proj, thoug"),
        ("qwen3_next", _without("linear_attn"), "no layers.0.linear_attn.out_proj or layers.0.sel"),
        ("qwen2_moe", _in_one_tensor, "in one tensor, model.layers.1.mlp.experts.w2, not"),
        ("qwen2_moe", _both, "experts.0.down_proj and .* ends with one"),
    ],
)
def test_a_mixture_that_is_incomplete_or_stored_otherwise_is_refused(
    change, name, changed, complaint
):
    with pytest.raises(CheckpointError, match=complaint):
        _ = open_checkpoint(change(name, changed)).sites


def test_a_layer_of_the_weights_beyond_the_configuration_s_is_left_out(change):
    """DeepSeek-V3 has one more, which predicts further tokens in training."""

    def one_more(tensors):
        more = {k.replace("layers.1.", "layers.2."): v.clone() for k, v in tensors.items()}
        return {**more, **tensors}

    folder = change("deepseek_v3", one_more)
    assert {s.layer for s in open_checkpoint(folder).sites if s.role == "output"} == {0, 1}


@pytest.fixture(scope="module")
def mixture(tmp_path_factory, patched_once):
    """Give a mixture whose tokens choose two of eight experts, and its artifact."""

    def make(name):
        source = save_model(name, tmp_path_factory.mktemp("mixture") / name)
        return source, patched_once(source, 3, 8)

    return make


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clm, of experts", "clm, of joined experts"])
def test_a_mixture_is_scored_as_pytorch_scores_it(mixture, name):
    source, out = mixture(name)
    lines = built_in_sample().lines[:12]
    result = evaluate(out, texts=texts_of(lines), controls=2)
    for folder, score in ((source, result.baseline), (out, result.patched)):
        loss, count = causal_loss(folder, lines)
        assert score.value == pytest.approx(loss, abs=1e-4)
        assert result.dataset.scored_tokens == count
    assert abs(result.patched.value - result.baseline.value) > 0.01


@pytest.mark.slow
def test_each_expert_of_the_graph_has_its_own_tensors_and_takes_its_own_tokens(mixture):
    _, out = mixture("clm, of experts")
    graph = onnx.load(out / "onnx/model.onnx").graph
    names = {i.name for i in graph.initializer}
    edited = {f"model.layers.{n}.block_sparse_moe.experts.{e}.w2.weight" for n, e in _TWO_BY_EIGHT}
    assert edited | {name.replace("w2", other) for name in edited for other in ("w1", "w3")} < names
    assert sum(node.op_type == "NonZero" for node in graph.node) == len(_TWO_BY_EIGHT)
    assert {node.domain for node in graph.node} <= {"", "ai.onnx"}


@pytest.mark.slow
def test_an_exported_mixture_is_patched_as_its_weights_are(mixture, tmp_path):
    source, out = mixture("clm, of experts")
    export(open_checkpoint(source), tmp_path / "exported")
    path = tmp_path / "exported/onnx/model.onnx"
    checkpoint = open_onnx(path).checkpoint
    assert checkpoint.layers == rank_by_layernorm(checkpoint).layers == 2
    patch_onnx(path, tmp_path / "graph", dims=(3, 8))
    names = open_checkpoint(source).tensors.keys() & checkpoint.tensors.keys()
    assert len([name for name in names if ".experts." in name]) == 3 * len(_TWO_BY_EIGHT)
    both = [tmp_path / "graph/onnx/model.onnx", out / "onnx/model.onnx"]
    one, other = (read_initializers(path, names) for path in both)
    for name in names:
        assert one[name].tobytes() == other[name].tobytes()


@pytest.mark.slow
def test_joined_experts_of_a_graph_are_refused_and_not_left_out(mixture):
    with pytest.raises(CheckpointError, match=r"tensor, .*0.mlp.experts.gate_up_proj, .* export"):
        open_onnx(mixture("clm, of joined experts")[1] / "onnx/model.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("pattern", [r".*\.w2\.weight", r".*\.experts\.\d+\.w2"])
def test_by_a_pattern_the_experts_of_a_graph_end_a_layer_together(mixture, pattern):
    model = open_onnx(mixture("clm, of experts")[1] / "onnx/model.onnx", pattern).checkpoint
    assert model.layers == rank_by_layernorm(model).layers == 2
    assert [site.layer for site in model.sites if site.role == "output"] == [0] * 8 + [1] * 8


@pytest.mark.slow
def test_experts_are_exported_in_float16_too(tmp_path):
    save_family("mixtral", tmp_path / "model", layers=1)
    exported = export(open_checkpoint(tmp_path / "model"), tmp_path / "out", dtype="float16")
    assert exported.onnx.parity.largest < 0.02
    graph = onnx.load(tmp_path / "out/onnx/model.onnx").graph
    of_experts = [i.data_type for i in graph.initializer if "experts" in i.name]
    assert len(of_experts) == 3 * 4
    assert set(of_experts) == {onnx.TensorProto.FLOAT16}


def test_experts_of_another_layout_are_not_exported_as_if_they_were_of_this(tmp_path):
    save_family("mixtral", tmp_path / "model")
    loaded = load_model(open_checkpoint(tmp_path / "model"))
    loaded.model.model.layers[1].mlp.experts.has_post_expert_norm = True
    with pytest.raises(ExportError, match=r"MixtralExperts is not two matrices"):
        fold_experts(loaded, FakeTensorMode())


@pytest.mark.parametrize("name", ["qwen2_moe", "gpt_oss", "granitemoe"])
@pytest.mark.parametrize("mode", [{"mode": "scale", "factor": 2}, {"mode": "mean"}])
def test_a_record_of_experts_is_restored_byte_for_byte(tmp_path, name, mode):
    save_family(name, tmp_path / "model")
    record = patch(tmp_path / "model", tmp_path / "out", dims=(3, 9), **mode)
    assert len(record.edits) == (2 if name == "granitemoe" else 4)
    assert_undone(tmp_path / "out", tmp_path / "model")


@pytest.mark.parametrize("name", ["qwen3_next", "exaone_moe", "qwen3_5_text"])
def test_the_block_that_predicts_further_tokens_is_no_part_of_the_model(change, name):
    """transformers does not load it (``_keys_to_ignore_on_load_unexpected``)."""

    def with_block(tensors):
        last = {k: v.clone() for k, v in tensors.items() if "model.layers.1." in k}
        return {**tensors, **{k.replace("model.layers.1.", "mtp.layers.0."): last[k] for k in last}}

    checkpoint = open_checkpoint(change(name, with_block))
    assert checkpoint.layers == 2
    assert not any(site.gain.startswith("mtp.") for site in checkpoint.sites)


@pytest.mark.parametrize(
    ("name", "pattern", "layers"),
    [
        ("llama", r".*(o_proj|down_proj)", 4),  # two operations of a layer are no experts
        ("bart", r".*layers\.\d+\.fc2", 4),  # nor are those of an encoder's layer and a decoder's
        ("qwen2_moe", r".*down_proj", 2),
        ("mixtral", r".*\.w2", 2),
    ],
)
def test_by_a_pattern_experts_alone_are_counted_together(tmp_path, name, pattern, layers):
    save_family(name, tmp_path)
    checkpoint = open_checkpoint(tmp_path, sites_pattern=pattern)
    assert checkpoint.layers == rank_by_layernorm(checkpoint).layers == layers
