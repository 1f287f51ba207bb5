import dataclasses
import shutil

import pytest
from families import EVERY, save_family

from surgeon import open_checkpoint
from surgeon.errors import UnknownArchitectureError
from surgeon.families import infer_family, one_stream

# What the names leave open, and between which families.
_OPEN = {
    "opt": "OPT",
    "opt, post-norm": r"OPT \(or kin\)",
    "gemma4_text, with embeddings of each layer": "Gemma 4",
    **dict.fromkeys(
        ("gemma2", "gemma3_text", "gemma3", "gemma4_text", "gemma4_unified_text"),
        r"Gemma 2 \(or kin\) or Gemma 4 \(or kin\)",
    ),
    **dict.fromkeys(("led", "bigbird_pegasus"), r"BART \(or kin\) or BigBird-Pegasus"),
    "olmo2": r"OLMo 2 \(or kin\) or Gemma 2 \(or kin\)",
    "olmo3": r"OLMo 2 \(or kin\) or Gemma 2 \(or kin\)",
    "flex_olmo": r"OLMo 2 \(or kin\) or Gemma 2 \(or kin\)",
    "exaone4": r"OLMo 2 \(or kin\) or Gemma 2 \(or kin\)",
    **dict.fromkeys(("data2vec-audio", "sew"), r"Wav2Vec2 \(or kin\)"),
    **{
        name: r"Wav2Vec2 \(or kin\)"
        for family in ("wav2vec2", "hubert", "wavlm", "unispeech", "unispeech-sat")
        for name in (family, f"{family}, pre-norm")
    },
}
# Without a norm or dense layer after attention the layers may be of another kind.
_BY_CONFIGURATION = (
    *("mobilebert", "mamba", "mamba2", "falcon_mamba", "nemotron_h", "nemotron_h, with experts"),
    *("wav2vec2-bert", "wav2vec2-conformer", "parakeet_ctc", "zamba", "zamba2"),
)
_TOLD = [name for name in EVERY if name not in (*_OPEN, *_BY_CONFIGURATION)]
# Of those with Llama's names, Gemma's final norm adds 1 to the gain that it stores, Cohere's
# subtracts the mean first, others' do neither.
_OWN_NORMS = (
    *("hunyuan_v1_dense", "apertus", "olmo", "qwen3_5_text", "mllama", "bitnet", "minicpm3"),
    *("youtu", "vaultgemma", "hunyuan_vl_text", "apertus1p5_text"),
)
_LLAMA = [
    name
    for name in _TOLD
    if EVERY[name].output.endswith("layers.1.mlp.down_proj.weight") and name not in _OWN_NORMS
]
# So do those of Qwen3-Next among the mixtures of experts, and of Phi-3.5-MoE beside Mixtral's.
_MIXTURES = (
    "mixtral",
    *("qwen2_moe", "qwen3_moe", "olmoe", "glm4_moe", "dots1"),
    *("ernie4_5_moe", "solar_open", "exaone_moe", "hy_v3", "laguna", "mimo_v2_flash", "mellum"),
    *(
        "glm4v_moe_text",
        "qwen3_vl_moe_text",
        "qwen3_omni_moe_text",
        "ernie4_5_vl_moe",
        "cohere2_moe",
    ),
)
_FINAL_LEFT_OPEN = (*_LLAMA, *_MIXTURES, "exaone")  # GPT-Neo's names


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """Save a family's tiny model, and return it opened with its configuration."""

    def save(name):
        folder = tmp_path_factory.mktemp("described")
        save_family(name, folder)
        return open_checkpoint(folder)

    return save


@pytest.fixture
def bare(tmp_path):
    """Open the weights of a checkpoint without their configuration."""

    def copy(checkpoint):
        shutil.copy(checkpoint.files[0].path, tmp_path / "mine.safetensors")
        return open_checkpoint(tmp_path / "mine.safetensors")

    return copy


def _places(sites):
    return [dataclasses.replace(site, stack="") for site in sites]


@pytest.mark.parametrize("name", _TOLD)
def test_tensor_names_tell_the_sites_that_the_configuration_tells(described, bare, name):
    checkpoint = described(name)
    inferred = bare(checkpoint)
    known = [
        site for site in checkpoint.sites if site.role != "final" or name not in _FINAL_LEFT_OPEN
    ]
    assert _places(inferred.sites) == _places(known)
    assert inferred.hidden_size == checkpoint.hidden_size
    assert ("its final norm needs config.json" in inferred.family.name) == (
        name in _FINAL_LEFT_OPEN
    )


@pytest.mark.parametrize("name", _OPEN)
def test_what_only_the_configuration_tells_is_refused_with_the_candidates(described, bare, name):
    with pytest.raises(
        UnknownArchitectureError,
        match=rf"mine\.safetensors: by its tensor names it is {_OPEN[name]}, and where .*"
        r"put config\.json beside it, or give `sites_pattern` REGEX; by names and shapes that is",
    ):
        assert bare(described(name)).sites


@pytest.mark.parametrize("name", _BY_CONFIGURATION)
def test_layers_without_an_attention_block_need_the_configuration(described, bare, name):
    with pytest.raises(
        UnknownArchitectureError,
        match=r"of no family that surgeon knows; put config\.json beside it",
    ):
        assert bare(described(name)).sites


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("camembert", "BERT-like (by tensor names)"),
        ("whisper", "mBART-like (by tensor names)"),
        ("deberta-v2, with a convolution", "DeBERTa-v2-like (by tensor names)"),
        ("phi3", "Llama-like (by tensor names; its final norm needs config.json)"),
        ("glm4", "GLM-4-like (by tensor names)"),
    ],
)
def test_the_family_is_named_after_the_first_that_fits_and_says_how_it_is_known(
    described, bare, name, called
):
    assert bare(described(name)).family.name == called


def _layers(count, **shapes):
    return {
        f"{path.format(i)}.weight": shape for i in range(count) for path, shape in shapes.items()
    }


_BERT = {
    **_layers(2, **{"encoder.layer.{}.output.LayerNorm": (16,)}),
    **_layers(2, **{"encoder.layer.{}.attention.output.LayerNorm": (16,)}),
}
_LLAMA_LAYERS = {
    **_layers(2, **{"layers.{}.mlp.down_proj": (16, 24)}),
    **_layers(2, **{"layers.{}.self_attn.o_proj": (16, 16)}),
    **_layers(2, **{"layers.{}.input_layernorm": (16,)}),
}
_NORM = {"norm.weight": (16,)}
_TOWER = {
    **_layers(2, **{"vision_model.encoder.layers.{}.mlp.fc2": (16, 24)}),
    **_layers(2, **{"vision_model.encoder.layers.{}.self_attn.out_proj": (16, 16)}),
    "vision_model.pre_layrnorm.weight": (16,),
    "vision_model.post_layernorm.weight": (16,),
}
_GPT = {
    **_layers(2, **{"h.{}.attn.c_proj": (16, 16)}),
    "h.0.mlp.c_proj.weight": (24, 16),
    "h.1.mlp.c_proj.weight": (24, 16),
    "ln_f.weight": (16,),
}


@pytest.mark.parametrize("shapes", [_BERT, {**_LLAMA_LAYERS, **_NORM}, _TOWER, _GPT])
def test_the_names_below_are_those_of_a_family_but_for_what_is_changed(shapes):
    assert one_stream(infer_family("it", shapes).sites(shapes), shapes)


_UNFIT = {
    "nothing": {},
    "no layers": {"embed.weight": (40, 16)},
    "the final norm in another shard": _LLAMA_LAYERS,
    "a layer of experts": {**_LLAMA_LAYERS, **_NORM, "layers.2.self_attn.o_proj.weight": (16, 16)},
    "experts in one tensor beside what is known": {
        **_LLAMA_LAYERS,
        **_NORM,
        **_layers(2, **{"layers.{}.moe.output_linear": (4, 16, 24)}),
    },
    "one more norm": {**_BERT, "encoder.layer.0.output.bottleneck.LayerNorm.weight": (16,)},
    "a norm after the output dense layer": {
        **_LLAMA_LAYERS,
        **_NORM,
        **_layers(2, **{"layers.{}.post_mlp_layernorm": (16,)}),
    },
    "RMSNorm with a bias": {
        **_layers(2, **{"layers.{}.post_feedforward_layernorm": (16,)}),
        **_layers(2, **{"layers.{}.post_attention_layernorm": (16,)}),
        **_NORM,
        "norm.bias": (16,),
    },
    "a layer missing": {**_BERT, "encoder.layer.3.output.LayerNorm.weight": (16,)},
    "inputs and outputs exchanged": {**_GPT, "h.0.mlp.c_proj.bias": (24,)},
    "a tower beside layers that take tokens": {
        **_TOWER,
        **_layers(2, **{"model.layers.{}.new_norm": (8,)}),
        "model.embed_tokens.weight": (40, 8),
    },
    "two encoders": {f"{p}.{name}": shape for name, shape in _BERT.items() for p in "ab"},
}


@pytest.mark.parametrize("case", _UNFIT)
def test_names_and_shapes_that_fit_no_family_to_the_end_are_refused(case):
    with pytest.raises(UnknownArchitectureError, match="it: its tensor names are those of no"):
        infer_family("it", _UNFIT[case])


def test_a_language_model_beside_a_vision_tower_is_not_taken_for_either():
    shapes = {**_TOWER, **{f"language_model.{n}": s for n, s in (_LLAMA_LAYERS | _NORM).items()}}
    with pytest.raises(
        UnknownArchitectureError, match=r"is Llama \(or kin\) or CLIP \(or kin\), and"
    ):
        infer_family("it", shapes)
