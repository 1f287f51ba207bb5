"""Watching and removing, in a tiny model of every family that takes text alone."""

import numpy as np
import pytest
import torch
from families import FAMILIES, MIXTURES, ODD, save_family

from surgeon import open_checkpoint
from surgeon.families import by_layer
from surgeon.tasks.examples import Example, batch_examples
from surgeon.torch_model.forward import run, run_at, watch, without_dims
from surgeon.torch_model.loading import load_model

DIMS = (3, 9)
_SEQUENCES = [(5, 6, 7, 8, 9), (4, 6)]
# transformers gives Gemma 3 other parameters than its file has, loads Mllama with images alone, and
# has no class for Mistral 4 or Qwen3-Omni's text by itself; experts of two sizes are not loaded.
_UNLOADED = ("gemma3", "mllama", "mistral4", "qwen3_omni_moe_text", "ernie4_5_vl_moe")
_TEXT = [
    name
    for name, tiny in {**FAMILIES, **ODD, **MIXTURES}.items()
    if list(tiny.inputs) == ["input_ids"] and name not in _UNLOADED
]


def layers_of(loaded):
    return by_layer(loaded.checkpoint.sites)


@pytest.fixture(scope="module", params=_TEXT)
def loaded(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("family")
    save_family(request.param, folder)
    return load_model(open_checkpoint(folder))


def _batch(loaded):
    return batch_examples([Example(ids) for ids in _SEQUENCES], loaded.inputs, 0)


def _seen(loaded):
    seen = {}
    watch(
        loaded,
        layers_of(loaded),
        _batch(loaded),
        lambda *seeing: seen.__setitem__(seeing[:2], seeing[2]),
    )
    return seen


def test_every_site_is_seen_writing_and_in_the_stream(loaded):
    layers = layers_of(loaded)
    seen = _seen(loaded)
    moments = {
        (number, moment) for number in range(len(layers)) for moment in ("written", "stream")
    }
    assert set(seen) == moments
    for states in seen.values():
        assert states.shape == (10, loaded.checkpoint.hidden_size)
    for number, (site, *_) in enumerate(layers):
        # A post-norm LayerNorm makes unit variance of the stream, and adds gain and bias to it.
        if site.kind == "layernorm":
            stream = torch.from_numpy(seen[number, "stream"])
            plain = torch.nn.functional.layer_norm(stream, stream.shape[-1:], eps=1e-12).numpy()
            gain, bias = (loaded.checkpoint.read(name) for name in (site.gain, site.bias))
            np.testing.assert_allclose(seen[number, "written"], plain * gain + bias, atol=1e-3)


def test_what_is_removed_is_not_written_and_comes_back(loaded):
    layers = layers_of(loaded)
    before = {k: v.clone() for k, v in loaded.model.state_dict().items()}
    whole = run(loaded, _batch(loaded))
    with without_dims(loaded, [site for sites in layers for site in sites], DIMS):
        seen = _seen(loaded)
        without = run(loaded, _batch(loaded))
    for number in range(len(layers)):
        assert not seen[number, "written"][:, DIMS].any()
        assert seen[number, "written"].any()
    assert np.abs(whole - without).max() > 1e-4
    after = loaded.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    np.testing.assert_array_equal(run(loaded, _batch(loaded)), whole)


def test_logits_at_positions_are_those_of_the_whole_output(loaded):
    if loaded.task == "drift":
        pytest.skip("no logits without a head")
    positions = [np.array([0, 3]), np.array([1])]
    whole = run(loaded, _batch(loaded))
    for row, (at, part) in enumerate(
        zip(positions, run_at(loaded, _batch(loaded), positions), strict=True)
    ):
        np.testing.assert_allclose(part, whole[row, at], atol=1e-5)


def test_a_pickle_is_loaded_and_its_folder_is_as_it_was(iglm_s):
    assert load_model(open_checkpoint(iglm_s)).task == "clm"
    assert sorted(path.name for path in iglm_s.iterdir()) == sorted(
        ["config.json", "pytorch_model.bin", "tokenizer_config.json", "vocab.txt"]
    )


def test_one_weight_file_of_several_is_the_one_that_is_loaded(tiny, tmp_path):
    other = tmp_path / "other.safetensors"
    for path in tiny("bert").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "model.safetensors").rename(other)
    (tmp_path / "model.safetensors").write_bytes(b"not the one")
    assert load_model(open_checkpoint(other)).task == "mlm"
