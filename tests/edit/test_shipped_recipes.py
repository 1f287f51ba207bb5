"""Every recipe that ships, checked and performed on a small model of its family."""

import numpy as np
import pytest
import torch
import transformers as t
from artifacts import edit_tensors

from surgeon import load_recipe, make_plan, open_checkpoint, write_artifact
from surgeon.edit.recipe import Recipe
from surgeon.edit.recipe_file import check_file, shipped_recipes

_PLANTED = (5, 11, 17)  # outliers of the small models, strongest last
_SMALL = {
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "vocab_size": 20,
    "max_position_embeddings": 16,
}


def _maker(model, config, hidden_size="hidden_size", layers="num_hidden_layers", **fixed):
    return lambda size, count: model(config(**{hidden_size: size, layers: count}, **fixed))


def _bart(hidden, layers):
    sizes = {"layers": layers, "attention_heads": 2, "ffn_dim": 8}
    both = {f"{stack}_{k}": v for stack in ("encoder", "decoder") for k, v in sizes.items()}
    return t.BartModel(t.BartConfig(d_model=hidden, vocab_size=20, **both))


_SMALL_GPT2 = {"n_head": 2, "n_inner": 8, "n_positions": 16, "vocab_size": 20}
_ONE_HEAD = {"num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 8, "pad_token_id": 0}
_IMAGE = {"image_size": 8, "patch_size": 4, "intermediate_size": 8, "num_attention_heads": 2}
_bert = _maker(t.BertModel, t.BertConfig, **_SMALL)
_roberta = _maker(t.RobertaModel, t.RobertaConfig, **_SMALL)
_electra = _maker(t.ElectraModel, t.ElectraConfig, embedding_size=8, **_SMALL)
_gpt2 = _maker(t.GPT2Model, t.GPT2Config, "n_embd", "n_layer", **_SMALL_GPT2)
_llama = _maker(t.LlamaForCausalLM, t.LlamaConfig, **{**_SMALL, **_ONE_HEAD})
_vit = _maker(t.ViTModel, t.ViTConfig, **_IMAGE)
_xlnet = _maker(
    t.XLNetLMHeadModel, t.XLNetConfig, "d_model", "n_layer", n_head=2, d_inner=8, vocab_size=20
)
_BERTS = (
    "", "all-MiniLM-L6-v2", "bert-base-uncased", "BERT-large", "BERT-medium of Kovaleva et al.",
    "mBERT", "multiberts-seed_0", "multiberts-seed_1",
)  # fmt: skip
_MAKERS = {  # of the model that a recipe names
    **dict.fromkeys(_BERTS, _bert),
    **dict.fromkeys(("roberta-base", "roberta-large", "distilroberta-base"), _roberta),
    "gpt2": _gpt2,
    **dict.fromkeys(("LLaMA2-7B", "LLaMA2-13B"), _llama),
    "ViT-B/16-in21k": _vit,
    "ELECTRA": _electra,
    "XLNet": _xlnet,
    "BART": _bart,
}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Save a model just large enough for a recipe, with planted outliers, once of each size."""
    made = {}

    def save(recipe):
        hidden = 8 * (max(recipe.dims or (63,)) // 8 + 1)
        layers = max(recipe.layers or (1,)) + 1
        key = (_MAKERS[recipe.model], hidden, layers)
        if key not in made:
            made[key] = tmp_path_factory.mktemp("small") / "model"
            torch.manual_seed(0)
            key[0](hidden, layers).save_pretrained(made[key])
            sites = [site for site in open_checkpoint(made[key]).sites if site.role == "output"]
            edit_tensors(made[key], lambda tensors: _plant(tensors, sites))
        return made[key]

    return save


def _plant(tensors, sites):
    """Make gain and bias of every output site stand out at some dimensions."""
    for name in {name for site in sites for name in (site.gain, site.bias) if name}:
        tensors[name] += 0.1 * torch.randn_like(tensors[name])  # fresh biases are zero
    for site in sites:
        for strength, dim in enumerate(_PLANTED, start=4):
            tensors[site.gain].select(site.axis, dim).fill_(strength)
            if site.bias is not None:
                tensors[site.bias][dim] = strength


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_recipe_that_ships_is_valid_and_says_what_it_is(name):
    checked = check_file(Recipe, shipped_recipes()[name])
    assert checked.problems == ()
    assert checked.content.description
    assert checked.content.model in _MAKERS


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_recipe_that_ships_does_what_it_says_to_a_small_model(small, tmp_path, name):
    recipe = load_recipe(name)
    checkpoint = open_checkpoint(small(recipe))
    plan = make_plan(checkpoint, recipe)
    record = write_artifact(plan, tmp_path / "out", onnx=False)
    assert record.parameters_changed > 0
    assert record.dims == (recipe.dims or record.dims)
    if recipe.remove_outliers:
        assert record.dims == _PLANTED[::-1][: recipe.remove_outliers]
    assert {edit.param for edit in record.edits} <= set(recipe.params)
    assert {edit.role for edit in record.edits} == set(recipe.sites)
    if recipe.layers:
        assert {edit.layer for edit in record.edits} == set(recipe.layers)
    patched = open_checkpoint(tmp_path / "out")
    for edit in plan.edits:
        old, new = (c.read(edit.tensor).take(edit.dims, edit.axis) for c in (checkpoint, patched))
        assert np.array_equal(new, _changed(recipe, checkpoint.read(edit.tensor), old, edit.axis))


def _changed(recipe, tensor, old, axis):
    mean = tensor.mean(axis=axis, keepdims=True, dtype=np.float64).astype(tensor.dtype)
    return {
        "zero": np.zeros_like(old),
        "scale": old * np.float32(recipe.factor or 0),
        "mean": np.broadcast_to(mean, old.shape),
    }[recipe.mode]


def test_published_figures_keep_their_grade():
    expectations = [load_recipe(name).expect for name in shipped_recipes()]
    published = [figure for e in expectations if e for figure in e.published]
    assert len(published) > 30
    loss = [f for f in published if (f.before, f.after) == (2.30, 4.53)]
    assert [f.grade for f in loss] == ["N"]
    assert all(f.within is not None for f in published if f.grade == "F" and f.after is not None)
