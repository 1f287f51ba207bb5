"""Every recipe that ships, checked and performed on a small model of its family."""

import numpy as np
import pytest
import torch
import transformers as t
from safetensors.torch import load_file

from surgeon import load_recipe, make_plan, open_checkpoint, write_artifact
from surgeon.edit.recipe import Recipe
from surgeon.edit.recipe_file import check_file, shipped_recipes

_PLANTED = (5, 11, 17)  # outliers of the small models, strongest last
_SMALL = {"intermediate_size": 8, "vocab_size": 20, "max_position_embeddings": 16}


def _bert(hidden, layers):
    config = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": 2}
    return t.BertModel(t.BertConfig(**config, **_SMALL))


def _roberta(hidden, layers):
    config = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": 2}
    return t.RobertaModel(t.RobertaConfig(**config, **_SMALL))


def _gpt2(hidden, layers):
    return t.GPT2Model(
        t.GPT2Config(
            n_embd=hidden, n_layer=layers, n_head=2, n_inner=8, n_positions=16, vocab_size=20
        )
    )


def _llama(hidden, layers):
    heads = {"num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 8}
    config = {"hidden_size": hidden, "num_hidden_layers": layers, "pad_token_id": 0}
    return t.LlamaForCausalLM(t.LlamaConfig(**config, **heads, **_SMALL))


def _vit(hidden, layers):
    image = {"image_size": 8, "patch_size": 4, "intermediate_size": 8, "num_attention_heads": 2}
    return t.ViTModel(t.ViTConfig(hidden_size=hidden, num_hidden_layers=layers, **image))


def _electra(hidden, layers):
    config = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": 2}
    return t.ElectraModel(t.ElectraConfig(**config, embedding_size=hidden, **_SMALL))


def _xlnet(hidden, layers):
    return t.XLNetLMHeadModel(
        t.XLNetConfig(d_model=hidden, n_layer=layers, n_head=2, d_inner=8, vocab_size=20)
    )


def _bart(hidden, layers):
    stacks = {f"{stack}_layers": layers for stack in ("encoder", "decoder")}
    heads = {f"{stack}_attention_heads": 2 for stack in ("encoder", "decoder")}
    inner = {f"{stack}_ffn_dim": 8 for stack in ("encoder", "decoder")}
    return t.BartModel(t.BartConfig(d_model=hidden, vocab_size=20, **stacks, **heads, **inner))


_MAKERS = {  # of the model that a recipe names
    "": _bert,
    "all-MiniLM-L6-v2": _bert,
    "bert-base-uncased": _bert,
    "BERT-large": _bert,
    "BERT-medium of Kovaleva et al.": _bert,
    "mBERT": _bert,
    "multiberts-seed_0": _bert,
    "multiberts-seed_1": _bert,
    "roberta-base": _roberta,
    "roberta-large": _roberta,
    "distilroberta-base": _roberta,
    "gpt2": _gpt2,
    "LLaMA2-7B": _llama,
    "LLaMA2-13B": _llama,
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
            model = key[0](hidden, layers)
            model.save_pretrained(made[key])
            _plant(made[key])
        return made[key]

    return save


def _plant(folder):
    """Make gain and bias of every output site stand out at some dimensions."""
    from safetensors.torch import save_file

    tensors = load_file(folder / "model.safetensors")
    sites = [site for site in open_checkpoint(folder).sites if site.role == "output"]
    for name in {name for site in sites for name in (site.gain, site.bias) if name}:
        tensors[name] += 0.1 * torch.randn_like(tensors[name])  # fresh biases are zero
    for site in sites:
        for strength, dim in enumerate(_PLANTED, start=4):
            tensors[site.gain].select(site.axis, dim).fill_(strength)
            if site.bias is not None:
                tensors[site.bias][dim] = strength
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


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
