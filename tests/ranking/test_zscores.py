import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from surgeon import open_checkpoint
from surgeon.ranking import read_zscores


def _checkpoint(folder, model_type, tensors):
    save_file({name: np.float32(v) for name, v in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    return open_checkpoint(folder)


def _bert(layers, hidden=32):
    rng = np.random.default_rng(0)
    return {
        f"encoder.layer.{layer}.output.LayerNorm.{kind}": rng.normal(size=hidden)
        for layer in range(layers)
        for kind in ("weight", "bias")
    }


def test_z_scores_are_signed_and_in_standard_deviations_of_their_own_vector(minilm):
    tensors = load_file(minilm / "model.safetensors")
    zscores = read_zscores(open_checkpoint(minilm))
    assert zscores.bias is not None
    for layer in range(6):
        for kind, found in (("weight", zscores.gain), ("bias", zscores.bias)):
            vector = tensors[f"encoder.layer.{layer}.output.LayerNorm.{kind}"].astype(np.float64)
            expected = (vector - vector.mean()) / vector.std()
            np.testing.assert_allclose(found[layer], expected, rtol=1e-12)
    assert (zscores.gain < -3).any()
    assert (zscores.bias > 3).any()
    assert zscores.rows == ("0", "1", "2", "3", "4", "5")


def test_a_dimension_s_distance_is_the_smaller_of_gain_and_bias_and_never_negative(tmp_path):
    tensors = _bert(2)
    tensors["encoder.layer.0.output.LayerNorm.weight"][5] = -50
    tensors["encoder.layer.0.output.LayerNorm.bias"][5] = 2
    zscores = read_zscores(_checkpoint(tmp_path, "bert", tensors))
    assert zscores.smaller[0, 5] == abs(zscores.bias[0, 5]) < abs(zscores.gain[0, 5])
    assert (zscores.smaller >= 0).all()


def test_a_layer_without_a_bias_is_judged_by_its_gain_alone(tmp_path):
    tensors = _bert(2)
    del tensors["encoder.layer.1.output.LayerNorm.bias"]
    zscores = read_zscores(_checkpoint(tmp_path, "bert", tensors))
    assert np.isnan(zscores.bias[1]).all()
    assert np.isfinite(zscores.bias[0]).all()
    np.testing.assert_array_equal(zscores.smaller[1], np.abs(zscores.gain[1]))


def test_an_rms_norm_has_no_bias_at_all(tmp_path):
    names = (f"model.layers.{layer}.post_feedforward_layernorm.weight" for layer in range(3))
    vectors = {name: np.arange(16.0) ** 2 for name in names}
    zscores = read_zscores(_checkpoint(tmp_path, "gemma2", vectors))
    assert zscores.bias is None
    assert zscores.gain.shape == (3, 16)
    assert zscores.evidence == "gain of the output RMSNorm"


def test_the_norm_of_a_dense_layer_s_slice_stands_for_the_gain(tiny):
    zscores = read_zscores(open_checkpoint(tiny("gpt2")))
    assert zscores.gain_name == "weight norm"
    weight = load_file(tiny("gpt2") / "model.safetensors")["transformer.h.2.mlp.c_proj.weight"]
    norms = np.linalg.norm(weight.astype(np.float64), axis=0)
    assert zscores.gain[2] == pytest.approx((norms - norms.mean()) / norms.std())


def test_the_layers_of_an_encoder_and_a_decoder_are_told_apart(tmp_path):
    rng = np.random.default_rng(0)
    tensors = {
        f"model.{stack}.layers.{layer}.final_layer_norm.{kind}": rng.normal(size=16)
        for stack in ("decoder", "encoder")
        for layer in range(2)
        for kind in ("weight", "bias")
    }
    zscores = read_zscores(_checkpoint(tmp_path, "bart", tensors))
    assert zscores.rows == ("enc 0", "enc 1", "dec 0", "dec 1")
    decoder = tensors["model.decoder.layers.1.final_layer_norm.bias"].astype(np.float32)
    assert zscores.bias[3].argmax() == decoder.argmax()


def test_values_whose_squares_overflow_have_the_z_scores_of_smaller_ones(tmp_path):
    vectors = {name: vector.astype(np.float64) for name, vector in _bert(1).items()}
    found = []
    for number, factor in enumerate((1.0, 2.0**900)):
        folder = tmp_path / str(number)
        folder.mkdir()
        scaled = {name: vector * factor for name, vector in vectors.items()}
        save_file(scaled, folder / "model.safetensors")
        (folder / "config.json").write_text('{"model_type": "bert"}')
        found.append(read_zscores(open_checkpoint(folder)))
    np.testing.assert_allclose(found[1].gain, found[0].gain, rtol=1e-12)
    np.testing.assert_allclose(found[1].bias, found[0].bias, rtol=1e-12)
