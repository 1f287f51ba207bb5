"""Models of architectures without a row: what the refusal says, and that following it works."""

import re

import numpy as np
import pytest
import transformers as t
from artifacts import edit_json, patch
from families import EVERY, save_family
from tiny import LLAMA, TOKENS

from surgeon import open_checkpoint
from surgeon.errors import CheckpointError, UnknownArchitectureError
from surgeon.families import suggest_pattern
from surgeon.families.infer import propose_norms

_GEMMA_2 = r"model\.layers\.\d+\.post_feedforward_layernorm"


def _refusal(folder):
    with pytest.raises(UnknownArchitectureError, match="not an architecture") as raised:
        open_checkpoint(folder).sites  # noqa: B018
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("bert", "BERT"),
        ("llama", "Llama"),
        ("glm4", "GLM-4"),
        ("bart", "BART"),
        ("t5", "T5"),
        ("t5gemma", "T5Gemma"),
        ("gpt2", "GPT-2"),
    ],
)
def test_names_of_a_known_family_give_the_pattern_of_its_output_sites(tmp_path, name, called):
    save_family(name, tmp_path)
    known = open_checkpoint(tmp_path)
    edit_json(tmp_path / "config.json", model_type="brand-new")
    message = _refusal(tmp_path)
    assert f"its tensor names are those of {called}: " in message
    (pattern,) = re.findall(r"`sites_pattern` '(.*)'$", message)
    followed = open_checkpoint(tmp_path, sites_pattern=pattern)
    assert {(s.gain, s.bias, s.axis, s.gain_offset, s.kind) for s in followed.sites} == {
        (s.gain, s.bias, s.axis, s.gain_offset, s.kind) for s in known.sites if s.role == "output"
    }


def test_a_norm_that_stores_its_gain_less_1_is_not_zeroed_to_0_unawares(tmp_path):
    save_family("gemma2", tmp_path / "model")
    with pytest.raises(CheckpointError, match=r"mean of .*say '1\+model") as raised:
        open_checkpoint(tmp_path / "model", sites_pattern=_GEMMA_2).sites  # noqa: B018
    assert "\n" not in str(raised.value)
    for said, zero in (("1+", -1.0), ("0+", 0.0)):
        opened = open_checkpoint(tmp_path / "model", sites_pattern=said + _GEMMA_2)
        record = patch(opened, tmp_path / said, dims=(3,))
        assert {edit.offset for edit in record.edits} == {-zero}
        gain = "model.layers.1.post_feedforward_layernorm.weight"
        assert np.all(open_checkpoint(tmp_path / said).read(gain)[3] == zero)


@pytest.mark.parametrize(
    "name", [n for n, f in EVERY.items() if f.kind != "dense" and not f.offset]
)
def test_a_gain_that_is_stored_as_it_is_needs_no_sign(tmp_path, name):
    save_family(name, tmp_path)
    module = EVERY[name].output.rpartition(".")[0]
    assert open_checkpoint(tmp_path, sites_pattern=re.escape(module)).sites


_LIKE_GEMMA_3N = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "laurel.post_laurel_norm",
    "self_attn.q_norm",
    "post_feedforward_layernorm",
)


def test_norms_that_end_a_layer_come_before_those_that_begin_one():
    shapes = {f"layers.{i}.{norm}.weight": (16,) for norm in _LIKE_GEMMA_3N for i in range(2)}
    proposed = [
        pattern.rpartition(".")[2] for pattern, score in propose_norms(shapes) if score >= 0
    ]
    assert proposed == ["post_feedforward_layernorm", "post_laurel_norm"]
    said = suggest_pattern(shapes)
    assert said.startswith("name what ends each layer with `sites_pattern` REGEX; ")
    assert said.endswith(r"or 'layers\.\d+\.laurel\.post_laurel_norm' (norms)")


def test_the_norm_of_what_a_conformer_s_layer_gives_comes_before_those_of_its_blocks():
    norms = ("conv.norm", "norm_feed_forward1", "norm_feed_forward2", "norm_out")
    shapes = {f"layers.{i}.{norm}.weight": (16,) for norm in norms for i in range(2)}
    assert propose_norms(shapes)[0][0] == r"layers\.\d+\.norm_out"


def test_beside_a_language_model_nothing_of_a_tower_of_images_is_named():
    shapes = {f"visual.blocks.{i}.norm2.weight": (8,) for i in range(4)}
    shapes |= {f"language_model.layers.{i}.mlp.down_proj.weight": (8, 12) for i in range(2)}
    shapes |= {f"language_model.layers.{i}.input_layernorm.weight": (8,) for i in range(2)}
    assert suggest_pattern(shapes).endswith(
        r"is likely 'language_model\.layers\.\d+\.mlp\.down_proj' (dense layers)"
    )


def test_layers_of_several_widths_have_no_one_pattern():
    shapes = {f"stages.{i}.blocks.{j}.norm.weight": (8 << i,) for i in range(2) for j in range(2)}
    assert suggest_pattern(shapes).endswith(
        "REGEX; its layers are of several widths, and REGEX is for those of one"
    )


def test_a_norm_that_is_not_over_the_stream_s_dimensions_comes_last():
    shapes = {"embeddings.LayerNorm.weight": (16,)}
    for i in range(2):
        shapes[f"layer.{i}.output.LayerNorm.weight"] = (8,)
        shapes[f"layer.{i}.output.bottleneck.LayerNorm.weight"] = (16,)
    assert propose_norms(shapes)[0][0] == r"layer\.\d+\.output\.bottleneck\.LayerNorm"


def test_without_norms_the_output_dense_layers_are_named_and_without_those_the_option():
    shapes = {f"layers.{i}.mlp.project_out.weight": (16, 24) for i in range(2)}
    beside = {"embed.weight": (40, 16), "projector.0.weight": (16, 24)}
    assert suggest_pattern({**beside, **shapes}).endswith(
        r"is likely 'layers\.\d+\.mlp\.project_out' (dense layers)"
    )
    assert suggest_pattern({}) == "name what ends each layer with `sites_pattern` REGEX"


def test_of_experts_all_are_proposed_together_and_a_patch_reaches_them(tmp_path):
    sizes = {"num_experts": 2, "moe_intermediate_size": 12, "num_experts_per_tok": 1}
    config = t.Qwen2MoeConfig(**LLAMA, **sizes, shared_expert_intermediate_size=12)
    t.Qwen2MoeForCausalLM(config).save_pretrained(tmp_path / "model")
    known = (tmp_path / "model" / "config.json").read_text()
    (tmp_path / "model" / "config.json").write_text(known.replace("qwen2_moe", "a_new_one"))
    (pattern,) = re.findall(r"`sites_pattern` '(.*)'$", _refusal(tmp_path / "model"))
    opened = open_checkpoint(tmp_path / "model", sites_pattern=pattern)
    patch(opened, tmp_path / "out", dims=(3,))
    (tmp_path / "out" / "config.json").write_text(known)
    model = t.Qwen2MoeForCausalLM.from_pretrained(tmp_path / "out")
    given = []
    for layer in model.model.layers:
        layer.mlp.register_forward_hook(lambda _module, _into, out: given.append(out))
    model(**TOKENS)
    assert len(given) == 2
    for out in given:
        assert (out[..., 3] == 0).all()
        assert (out[..., 4] != 0).any()


def test_fused_experts_are_named_as_what_no_pattern_names(tmp_path):
    save_family("gpt_oss", tmp_path)
    edit_json(tmp_path / "config.json", model_type="a_new_one")
    assert _refusal(tmp_path).endswith(
        "its experts are fused in model.layers.0.mlp.experts.down_proj, which no pattern names"
    )
