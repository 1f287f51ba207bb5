import pytest
import transformers
from conftest import TINY_FAMILIES, rename_tensors

from surgeon import open_checkpoint
from surgeon.architectures import FAMILIES, family_of
from surgeon.errors import CheckpointError, UnknownArchitectureError

# family → the output site of layer 1, its kind and axis, and the roles that are there
_EXPECTED = {
    "bert": ("bert.encoder.layer.1.output.LayerNorm.weight", "layernorm", 0),
    "roberta": ("roberta.encoder.layer.1.output.LayerNorm.weight", "layernorm", 0),
    "electra": ("electra.encoder.layer.1.output.LayerNorm.weight", "layernorm", 0),
    "electra-discriminator": ("electra.encoder.layer.1.output.LayerNorm.weight", "layernorm", 0),
    "mpnet": ("mpnet.encoder.layer.1.output.LayerNorm.weight", "layernorm", 0),
    "distilbert": ("distilbert.transformer.layer.1.output_layer_norm.weight", "layernorm", 0),
    "gpt2": ("transformer.h.1.mlp.c_proj.weight", "dense", 1),
}


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_the_output_site_is_the_last_operation_of_each_layer(tiny, family):
    checkpoint = open_checkpoint(tiny(family))
    output = [site for site in checkpoint.sites if site.role == "output"]
    assert [site.layer for site in output] == [0, 1, 2]
    assert (output[1].gain, output[1].kind, output[1].axis) == _EXPECTED[family]
    assert output[1].bias == output[1].gain.replace("weight", "bias")
    assert checkpoint.hidden_size == 16


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_attention_has_a_site_in_each_layer(tiny, family):
    attention = [s for s in open_checkpoint(tiny(family)).sites if s.role == "attention"]
    assert [site.layer for site in attention] == [0, 1, 2]
    assert all("attention" in s.gain or "attn" in s.gain or "sa_" in s.gain for s in attention)


def test_the_layernorm_inside_the_head_is_no_site(tiny):
    for family in TINY_FAMILIES:
        names = [site.gain for site in open_checkpoint(tiny(family)).sites]
        assert not [name for name in names if "head" in name or "predictions" in name]


def _tensorflow_names(name):
    if "LayerNorm" in name:
        return name.replace("weight", "gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    return name


@pytest.mark.parametrize(
    "rename",
    [
        _tensorflow_names,
        lambda name: name.removeprefix("bert."),
        lambda name: f"model.encoder.{name}",
    ],
)
def test_names_with_gamma_and_beta_and_any_prefix_are_found(tiny, tmp_path, rename):
    original = open_checkpoint(tiny("bert"))
    rename_tensors(tiny("bert"), tmp_path / "renamed", rename)
    renamed = open_checkpoint(tmp_path / "renamed")
    assert [s.gain for s in renamed.sites] == [rename(s.gain) for s in original.sites]
    assert [s.bias for s in renamed.sites] == [rename(s.bias) for s in original.sites]


def test_two_models_in_one_file_are_refused():
    names = [f"{p}.encoder.layer.0.output.LayerNorm.weight" for p in ("query", "passage")]
    with pytest.raises(CheckpointError, match="several models"):
        family_of("bert").sites(names)


def test_a_missing_layer_is_refused():
    names = [f"encoder.layer.{i}.output.LayerNorm.weight" for i in (0, 2)]
    with pytest.raises(CheckpointError, match=r"no encoder\.layer\.1\.output\.LayerNorm"):
        family_of("bert").sites(names)


def test_weights_of_another_model_are_refused():
    with pytest.raises(CheckpointError, match="not those of a BERT model"):
        family_of("bert").sites(["h.0.mlp.c_proj.weight"])


@pytest.mark.parametrize("model_type", [None, "mamba", ["bert"], 3])
def test_an_unknown_architecture_is_named_with_those_known(model_type):
    with pytest.raises(UnknownArchitectureError, match=r"it knows bert, .*roberta"):
        family_of(model_type)


def test_every_model_type_is_one_that_transformers_knows():
    known = transformers.CONFIG_MAPPING
    assert not [name for family in FAMILIES for name in family.model_types if name not in known]
