import pytest
import transformers
from conftest import rename_tensors
from families import FAMILIES as TINY
from families import KIN, MIXTURES, ODD, made, save_family
from tiny import GPT, TEXT, XLNET

from surgeon import open_checkpoint, open_live
from surgeon.errors import CheckpointError, SelectionError, UnknownArchitectureError
from surgeon.families import FAMILIES, by_layer, family_of, one_stream, sites_from_pattern
from surgeon.families.infer import propose_dense, propose_norms

_BY_CODE = {"new": "gte", "kimi_k2": "deepseek_v3"}  # types that transformers has not
_ENCODERS = ("bert", "roberta", "electra", "mpnet", "distilbert")


def test_xlnet_without_a_head_has_the_sites_of_one_with_it(tmp_path):
    transformers.XLNetModel(transformers.XLNetConfig(**XLNET)).save_pretrained(tmp_path)
    output = [site.gain for site in open_checkpoint(tmp_path).sites if site.role == "output"]
    assert output == [f"layer.{layer}.ff.layer_norm.weight" for layer in range(2)]


@pytest.mark.parametrize("name", [*TINY, *KIN])
def test_each_family_has_the_output_sites_of_its_table_row(tmp_path, name):
    expected = {**TINY, **KIN}[name]
    save_family(name, tmp_path)
    output = [site for site in open_checkpoint(tmp_path).sites if site.role == "output"]
    found = [(site.stack, site.layer) for site in output]
    assert found == [(stack, i) for stack, count in expected.stacks.items() for i in range(count)]
    site = next(site for site in output if site.gain == expected.output)
    assert (site.kind, site.axis, site.gain_offset) == (
        expected.kind,
        expected.axis,
        expected.offset,
    )
    module = expected.output.removesuffix(".weight")
    assert site.bias == (f"{module}.bias" if expected.bias else None)


@pytest.mark.parametrize("name", [*TINY, *KIN, *ODD])
def test_a_model_in_memory_has_the_layers_of_its_file_whatever_it_calls_them(name):
    output = [site for site in open_live(made(name)).sites if site.role == "output"]
    assert len(output) == sum({**TINY, **KIN, **ODD}[name].stacks.values())


@pytest.mark.parametrize("name", MIXTURES)
def test_a_mixture_in_memory_has_its_file_s_scalars_at_each_layer_s_end(name, tmp_path):
    save_family(name, tmp_path)
    counts = []
    for checkpoint in (open_checkpoint(tmp_path), open_live(made(name))):
        layers = by_layer(checkpoint.sites)
        counts.append([sum(checkpoint.tensors[s.gain].size for s in layer) for layer in layers])
    assert counts[0] == counts[1]


@pytest.mark.parametrize("language", ["language_model", "text_model", "thinker"])
def test_what_is_beside_a_language_model_with_layers_of_its_names_is_left_out(language):
    names = [f"{of}.layers.0.mlp.down_proj.weight" for of in (f"model.{language}", "resampler")]
    assert [site.gain for site in family_of("llama").sites(names)] == names[:1]


def test_a_multimodal_model_has_the_row_of_its_language_model():
    text = {"model_type": "qwen2"}
    found = family_of("a_new_one", {"text_config": text})
    assert (found.name, found.templates) == (
        "Qwen2 in a multimodal model",
        family_of("qwen2").templates,
    )
    post_norm = {"model_type": "opt", "do_layer_norm_before": False}
    assert family_of("a_new_one", {"text_config": post_norm}).templates[0].kind == "layernorm"
    assert family_of("clip", {"text_config": text}).name == "CLIP"
    with pytest.raises(CheckpointError, match="not those of a Qwen2 in a multimodal model;"):
        found.sites(["norm.weight"])
    paligemma = {"model_type": "paligemma", "text_config": {"model_type": "gemma"}}
    for parts in ({"vlm_config": paligemma}, {"thinker_config": paligemma}, paligemma):
        assert family_of("a_new_one", parts).name == "Gemma in a multimodal model"
    for other in ({"model_type": "clip_text_model"}, {"model_type": ["qwen2"]}, {}, None):
        with pytest.raises(UnknownArchitectureError, match="'a_new_one' is not an architecture"):
            family_of("a_new_one", {"text_config": other})


@pytest.mark.parametrize(
    ("model_type", "gain"),
    [
        ("bert", "bert.encoder.layer.0.mlp.layernorm.weight"),  # of DNABERT-2, Jina v2
        ("bloom", "h.0.mlp.dense_4h_to_h.weight"),
        ("opt", "decoder.layers.0.fc2.weight"),
        ("gpt2", "h.0.mlp.c_proj.weight"),
        ("camembert", "roberta.encoder.layer.0.output.LayerNorm.weight"),
        ("deberta", "deberta.encoder.layer.0.output.LayerNorm.gamma"),
        ("vit", "encoder.layer.0.output.dense.weight"),
        ("bart", "decoder.layers.0.final_layer_norm.weight"),
        ("t5", "transformer.decoder.block.0.layer.2.DenseReluDense.wo.weight"),
        ("llama", "layers.0.mlp.down_proj.weight"),
        ("gemma3", "model.language_model.layers.0.post_feedforward_layernorm.weight"),
        ("gemma3", "language_model.model.layers.0.post_feedforward_layernorm.weight"),
        ("clip_text_model", "text_model.encoder.layers.0.mlp.fc2.weight"),
        ("wav2vec2", "encoder.layers.0.final_layer_norm.weight"),
    ],
)
def test_names_that_other_code_wrote_are_found(model_type, gain):
    (site,) = family_of(model_type).sites([gain])
    assert (site.role, site.layer, site.gain) == ("output", 0, gain)


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"model_type": "opt"}, "dense"),
        ({"model_type": "opt", "do_layer_norm_before": True}, "dense"),
        ({"model_type": "opt", "do_layer_norm_before": False}, "layernorm"),
        ({"model_type": "wav2vec2"}, "layernorm"),
        ({"model_type": "wav2vec2", "do_stable_layer_norm": False}, "layernorm"),
        ({"model_type": "wav2vec2", "do_stable_layer_norm": True}, "dense"),
        ({"model_type": "bart"}, "layernorm"),
        ({"model_type": "mbart"}, "dense"),
    ],
)
def test_the_configuration_decides_between_post_norm_and_pre_norm(config, kind):
    assert family_of(config["model_type"], config).templates[0].kind == kind


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "albert", "inner_group_num": 2},
        {"model_type": "wav2vec2", "do_stable_layer_norm": True, "adapter_attn_dim": 16},
    ],
)
def test_layers_with_an_operation_that_no_row_has_are_refused(config):
    option = list(config.items())[-1]
    with pytest.raises(UnknownArchitectureError, match="{} {}".format(*option)):
        family_of(config["model_type"], config)


@pytest.mark.parametrize("family", [*_ENCODERS, "gpt2"])
def test_attention_has_a_site_in_each_layer_and_the_norm_in_the_head_is_none(tiny, family):
    sites = open_checkpoint(tiny(family)).sites
    attention = [site for site in sites if site.role == "attention"]
    assert [site.layer for site in attention] == [0, 1, 2]
    assert all("attention" in s.gain or "attn" in s.gain or "sa_" in s.gain for s in attention)
    assert not [site for site in sites if "head" in site.gain or "predictions" in site.gain]


@pytest.mark.parametrize(
    ("model", "config", "gain", "axis"),
    [
        (
            transformers.BertLMHeadModel,
            transformers.BertConfig(**TEXT, is_decoder=True, add_cross_attention=True),
            "bert.encoder.layer.1.crossattention.output.LayerNorm.weight",
            0,
        ),
        (
            transformers.GPT2LMHeadModel,
            transformers.GPT2Config(**GPT, add_cross_attention=True),
            "transformer.h.1.crossattention.c_proj.weight",
            1,
        ),
    ],
)
def test_the_cross_attention_of_a_decoder_is_an_attention_site(tmp_path, model, config, gain, axis):
    model(config).save_pretrained(tmp_path)
    attention = [s for s in open_checkpoint(tmp_path).sites if s.role == "attention"]
    assert len(attention) == 4
    (site,) = [s for s in attention if s.gain == gain]
    assert (site.layer, site.axis, site.bias) == (1, axis, gain.replace("weight", "bias"))


def _tensorflow_names(name):
    if "LayerNorm" in name:
        return name.replace("weight", "gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    return name


@pytest.mark.parametrize(
    "rename",
    [
        _tensorflow_names,
        lambda name: name.removeprefix("bert."),
        lambda name: f"my+model.{name}",
    ],
)
def test_names_with_gamma_and_beta_and_any_prefix_are_found(tiny, tmp_path, rename):
    original = open_checkpoint(tiny("bert"))
    rename_tensors(tiny("bert"), tmp_path / "renamed", rename)
    renamed = open_checkpoint(tmp_path / "renamed")
    assert [s.gain for s in renamed.sites] == [rename(s.gain) for s in original.sites]
    assert [s.bias for s in renamed.sites] == [rename(s.bias) for s in original.sites]


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (["query.encoder.layer.0.output.LayerNorm.weight",
          "passage.encoder.layer.0.output.LayerNorm.weight"], "several models"),
        (["encoder.layer.0.output.LayerNorm.weight", "encoder.layer.2.output.LayerNorm.weight"],
         r"no encoder\.layer\.1\.output\.LayerNorm"),
        (["encoder.layer.0.output.LayerNorm.bias"], "a bias but no gain"),
        (["h.0.mlp.c_proj.weight"], "not those of a BERT model"),
        ([f"encoder.layer.{'9' * 5000}.output.LayerNorm.weight"], "not those of a BERT model"),
        (["encoder.layer.0.output.LayerNorm.base_layer.weight"], "merge its adapters into it"),
        (["encoder.layer.0.output.LayerNorm.codebooks"], "is quantized, give the model before"),
    ],
)  # fmt: skip
def test_names_that_are_not_those_of_one_whole_bert_are_refused(names, complaint):
    with pytest.raises(CheckpointError, match=complaint):
        family_of("bert").sites(names)


@pytest.mark.parametrize("model_type", [None, "rwkv", ["bert"], 3])
def test_an_unknown_architecture_is_named(model_type):
    with pytest.raises(UnknownArchitectureError, match=r"is not an architecture .* the \d{3} "):
        family_of(model_type)


def test_every_model_type_but_a_few_is_one_that_transformers_knows():
    known = transformers.CONFIG_MAPPING
    names = [name for family in FAMILIES for name in family.model_types]
    assert [name for name in names if name not in known] == [*_BY_CODE]


@pytest.mark.parametrize("name", _BY_CODE)
def test_a_type_that_is_code_of_its_repository_has_the_layers_of_its_kin(name):
    found, kin = family_of(name), family_of(_BY_CODE[name])
    assert (found.templates, found.inner_norms) == (kin.templates, kin.inner_norms)


def test_a_norm_under_another_prefix_than_the_layers_is_no_site():
    names = ["model.layers.0.mlp.down_proj.weight", "model.norm.weight", "vision.norm.weight"]
    assert [site.gain for site in family_of("llama").sites(names)] == names[:2]


@pytest.mark.parametrize(
    ("gain", "bias", "complaint"),
    [
        ((16, 16), (16,), r"not a layernorm over any"),
        ((16,), (12,), r"shape \[16\] and its bias \[12\]"),
        ((12,), (12,), r"not a layernorm over 16 dimensions"),
    ],
)
def test_shapes_that_do_not_fit_the_stream_are_refused(gain, bias, complaint):
    shapes = {
        "encoder.layer.0.output.LayerNorm.weight": (16,),
        "encoder.layer.0.output.LayerNorm.bias": (16,),
        "encoder.layer.1.output.LayerNorm.weight": gain,
        "encoder.layer.1.output.LayerNorm.bias": bias,
    }
    with pytest.raises(CheckpointError, match=complaint):
        one_stream(family_of("bert").sites(shapes), shapes)


_UNKNOWN = {
    "embed.weight": (40, 16),
    "stem.norm.weight": (16,),
    **{
        f"blocks.{i}.{leaf}": shape
        for i in range(3)
        for leaf, shape in {
            "ln_1.weight": (16,),
            "ln_1.bias": (16,),
            "attn.q_norm.weight": (8,),
            "attn.kiln.weight": (16,),
            "attn.out.weight": (16, 32),
            "mlp.fc_in.weight": (16, 64),
            "mlp.fc_in.bias": (64,),
            "mlp.out.weight": (16, 24),
            "mlp.out.bias": (16,),
            "mlp.conv1d.weight": (24, 16),
            "mlp.conv1d.bias": (16,),
            "mlp.norm-2.weight": (16,),
            "kernel.weight": (16, 16, 3),
            "growing_norm.weight": (16 + i,),
            "flat_norm.weight": (4, 4),
        }.items()
    },
    "head.0.norm.weight": (16,),
    "moe.0.experts.down_proj": (2, 24, 16),
}


def test_norms_that_every_layer_has_are_proposed_the_likeliest_first():
    assert propose_norms({}) == []
    shapes = {"pair.0.norm.weight": (16,), "pair.1.norm.weight": (16,), **_UNKNOWN}
    assert [pattern for pattern, _ in propose_norms(shapes)] == [
        r"blocks\.\d+\.mlp\.norm\-2",
        r"blocks\.\d+\.ln_1",
        r"pair\.\d+\.norm",
        r"blocks\.\d+\.attn\.q_norm",
    ]


def test_output_dense_layers_are_proposed():
    assert propose_dense({}) == []
    mixture = {"layers.0.mlp.wo.weight": (16, 24), "layers.0.norm.weight": (16,)}
    for expert in range(2):
        mixture[f"layers.1.mlp.experts.expert_{expert}.wo.weight"] = (16, 24)
    assert propose_dense(mixture) == [
        r"layers\.\d+\.mlp\.wo",  # of the one layer without experts
        r"layers\.\d+\.mlp\.experts\.expert_\d+\.wo",
    ]
    assert propose_dense(_UNKNOWN) == [r"blocks\.\d+\.mlp\.out", r"blocks\.\d+\.mlp\.conv1d"]


@pytest.mark.parametrize("name", [n for n, f in TINY.items() if f.kind != "dense"])
def test_the_norms_of_the_known_families_are_among_the_proposals(tmp_path, name):
    save_family(name, tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    shapes = {tensor: info.shape for tensor, info in checkpoint.tensors.items()}
    proposed = [s.gain for p, _ in propose_norms(shapes) for s in sites_from_pattern(p, shapes)]
    output = [site.gain for site in checkpoint.sites if site.role == "output"]
    assert set(output) <= set(proposed) or len(output) == 1  # ALBERT's one layer repeats nowhere


@pytest.mark.parametrize(
    ("pattern", "kind", "axis", "bias"),
    [
        (r"blocks\.\d+\.ln_1", "layernorm", 0, "blocks.1.ln_1.bias"),
        (r"blocks\.\d+\.mlp\.norm-2", "rmsnorm", 0, None),
        (r".*mlp\.out", "dense", 0, "blocks.1.mlp.out.bias"),
        (r".*mlp\.conv1d", "dense", 1, "blocks.1.mlp.conv1d.bias"),
    ],
)
def test_a_pattern_makes_output_sites_by_the_shapes(pattern, kind, axis, bias):
    sites = sites_from_pattern(pattern, dict(reversed(_UNKNOWN.items())))
    assert [site.layer for site in sites] == [0, 1, 2]
    assert {(site.role, site.expert) for site in sites} == {("output", False)}
    assert (sites[1].kind, sites[1].axis, sites[1].bias) == (kind, axis, bias)
    assert one_stream(sites, _UNKNOWN) == sites


def test_a_number_of_thousands_of_digits_is_none_of_a_layer():
    shapes = {f"layers.{'9' * 5000}.norm.weight": (16,)}
    (site,) = sites_from_pattern(r"layers\.\d+\.norm", shapes)
    assert site.layer is None


@pytest.mark.parametrize(
    ("pattern", "complaint"),
    [
        (r"blocks.(", "not a regular expression"),
        (r"layers\.\d+\.norm", r"matches no module; .* likely 'blocks\\\.\\d\+\\\.mlp"),
        (r"ln_1", "matches no module"),  # the whole path, not a part of it
        (r"blocks\.\d+\.kernel", r"shape \[16, 16, 3\]"),
        (r"1+blocks\.\d+\.mlp\.out", "1\\+ is for norms"),
        (r".*\.experts\.down_proj", r"0\.experts\.down_proj is the weights of all experts"),
    ],
)
def test_a_pattern_that_makes_no_sites_is_refused(pattern, complaint):
    with pytest.raises(SelectionError, match=complaint):
        sites_from_pattern(pattern, _UNKNOWN)
