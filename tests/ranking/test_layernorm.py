import json
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from surgeon import open_checkpoint, rank_by_layernorm
from surgeon.errors import CheckpointError, SelectionError
from surgeon.ranking.layernorm import rank_by_count
from surgeon.ranking.zscores import read_zscores, slice_norms

_NORM = "encoder.layer.{}.output.LayerNorm.{}"


def save_vectors(folder, model_type, vectors):
    folder.mkdir()
    save_file(vectors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    return open_checkpoint(folder)


def make_checkpoint(folder, gains, biases):
    """A BERT of output LayerNorms alone, gains and biases of shape (layers, hidden)."""
    vectors = {}
    for layer, (gain, bias) in enumerate(zip(gains, biases, strict=True)):
        vectors[_NORM.format(layer, "weight")] = np.float32(gain)
        vectors[_NORM.format(layer, "bias")] = np.float32(bias)
    return save_vectors(folder, "bert", vectors)


@pytest.fixture
def vectors():
    """Gains and biases without outliers: a fixed spread, permuted in each layer."""
    rng = np.random.default_rng(0)
    spread = np.linspace(-1, 1, 200)
    return (np.array([rng.permutation(spread) for _ in range(4)]) for _ in range(2))


def test_an_outlier_needs_gain_and_bias_in_half_of_the_layers(tmp_path, vectors):
    gains, biases = vectors
    gains[:2, 7], biases[:2, 7] = 9, -9  # both, in 2 of 4 layers
    gains[:1, 8], biases[:1, 8] = 9, 9  # both, in 1 of 4
    gains[:, 9] = 9  # the gain alone
    biases[:, 10] = 9  # the bias alone
    ranking = rank_by_layernorm(make_checkpoint(tmp_path / "m", gains, biases))
    assert ranking.outliers == (7,)
    first, second = ranking.dimensions[:2]
    assert (first.dim, first.layers, first.score) == (7, (0, 1), 0.5)
    assert (second.dim, second.layers, second.score) == (8, (0,), 0.25)
    assert all(d.layers == () for d in ranking.dimensions[2:])
    assert sorted(d.dim for d in ranking.dimensions) == list(range(200))


def test_fewer_layers_or_a_smaller_sigma_widen_the_criterion(tmp_path, vectors):
    gains, biases = vectors
    gains[:1, 8], biases[:1, 8] = 9, 9
    checkpoint = make_checkpoint(tmp_path / "m", gains, biases)
    assert rank_by_layernorm(checkpoint, min_layers=1).outliers == (8,)
    assert rank_by_layernorm(checkpoint, min_layers=0.25).outliers == (8,)
    assert rank_by_layernorm(checkpoint, min_layers=2).outliers == ()
    assert len(rank_by_layernorm(checkpoint, sigma=0.1).outliers) > 100


@pytest.mark.parametrize(
    "options",
    [
        {"sigma": 0},
        {"sigma": float("nan")},
        {"min_layers": 0},
        {"min_layers": 5},
        {"min_layers": 1.5},
        {"min_layers": -1},
        {"min_layers": float("inf")},
        {"min_layers": -float("inf")},
    ],
)
def test_options_without_sense_are_refused(tmp_path, vectors, options):
    with pytest.raises(SelectionError, match=r"`sigma`|`min_layers`"):
        rank_by_layernorm(make_checkpoint(tmp_path / "m", *vectors), **options)


def test_equal_values_have_no_outlier(tmp_path):
    ranking = rank_by_layernorm(
        make_checkpoint(tmp_path / "m", np.ones((3, 20)), np.zeros((3, 20)))
    )
    assert ranking.outliers == ()
    assert all(d.score == d.strength == 0 for d in ranking.dimensions)


def test_values_that_are_not_finite_are_an_error(tmp_path, vectors):
    gains, biases = vectors
    biases[2, 5] = np.nan
    with pytest.raises(CheckpointError, match=r"layer\.2\.output\.LayerNorm\.bias .*not finite"):
        rank_by_layernorm(make_checkpoint(tmp_path / "m", gains, biases))


def test_a_dense_layer_is_ranked_by_column_norm_and_bias(tiny, tmp_path):
    tensors = load_file(tiny("gpt2") / "model.safetensors")
    for layer in range(3):
        tensors[f"transformer.h.{layer}.mlp.c_proj.weight"][:, 5] *= 40
        tensors[f"transformer.h.{layer}.mlp.c_proj.bias"][5] = 9
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((tiny("gpt2") / "config.json").read_bytes())
    ranking = rank_by_layernorm(open_checkpoint(tmp_path))
    assert ranking.outliers == (5,)
    assert "output dense layer" in ranking.evidence


@pytest.mark.parametrize("axis", [0, 1])
def test_the_norm_of_each_dimension_s_slice_needs_no_float64_copy_of_the_weight(axis):
    weight = np.random.default_rng(0).normal(size=(8192, 1024)).astype(np.float16)
    exact = np.linalg.norm(weight.astype(np.float64), axis=1 - axis)
    tracemalloc.start()
    norms = slice_norms(weight, axis)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_allclose(norms, exact, rtol=1e-14)
    assert peak < 2 * weight.nbytes


def test_a_tensor_of_no_experts_has_norms_of_zero():
    assert slice_norms(np.ones((0, 4, 3)), 1).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(("block", "shape"), [(128, (2, 3)), (1, (192, 1)), (1, (192,))])
def test_quantized_weights_are_ranked_as_what_their_scales_make_of_them(tmp_path, block, shape):
    """The last block is cut off where 192 rows are in blocks of 128; or each row has a scale."""
    rng, name = np.random.default_rng(0), "model.layers.0.mlp.down_proj.weight"
    stored = rng.uniform(-400, 400, size=(192, 384)).astype(ml_dtypes.float8_e4m3fn)
    scales = rng.uniform(1, 9, size=shape).astype(np.float32)
    by_column = scales[:, np.arange(384) // 128] if block > 1 else scales.reshape(-1, 1)
    whole = stored.astype(np.float32) * by_column[np.arange(192) // block]
    packed = {name: stored, f"{name}_scale_inv": scales}
    found = read_zscores(save_vectors(tmp_path / "packed", "llama", packed))
    wanted = read_zscores(save_vectors(tmp_path / "whole", "llama", {name: whole}))
    np.testing.assert_allclose(found.gain, wanted.gain, atol=1e-4)


def test_scales_that_do_not_fit_their_weight_are_refused(tmp_path):
    name = "model.layers.0.mlp.down_proj.weight"
    packed = {name: np.ones((8, 4), np.float32), f"{name}_scale": np.ones((9, 1), np.float32)}
    with pytest.raises(
        CheckpointError, match=r"weight_scale has shape \[9, 1\], which does not fit"
    ):
        read_zscores(save_vectors(tmp_path / "model", "llama", packed))


def test_minilm_has_no_outlier_and_ranks_267_and_127_first(minilm):
    """Figures of the z-scores recomputed here by their definition."""
    tensors = load_file(minilm / "model.safetensors")

    def distance(kind):
        rows = [tensors[f"encoder.layer.{i}.output.LayerNorm.{kind}"] for i in range(6)]
        values = np.array(rows, dtype=np.float64)
        return np.abs(values - values.mean(1, keepdims=True)) / values.std(1, keepdims=True)

    both = np.minimum(distance("weight"), distance("bias"))
    ranking = rank_by_layernorm(open_checkpoint(minilm))
    assert ranking.outliers == ()
    assert [d.dim for d in ranking.dimensions[:2]] == [267, 127]
    for dimension in ranking.dimensions:
        assert dimension.layers == tuple(np.flatnonzero(both[:, dimension.dim] > 3))
        assert dimension.strength == pytest.approx(both[:, dimension.dim].mean())


def test_gains_and_biases_are_counted_apart(tmp_path, vectors):
    gains, biases = vectors
    gains[:2, 7] = 9  # the gain alone, in 2 of 4 layers: more than a quarter
    biases[2:, 8] = -9  # the bias alone
    gains[0, 9], biases[1, 9] = 9, 9  # each once, which is a quarter and no more
    ranking = rank_by_count(make_checkpoint(tmp_path / "m", gains, biases))
    assert set(ranking.outliers) == {7, 8}
    by_dim = {d.dim: d for d in ranking.dimensions}
    assert (by_dim[7].layers, by_dim[7].score) == ((0, 1), 0.5)
    assert (by_dim[8].layers, by_dim[8].score) == ((2, 3), 0.5)
    assert (by_dim[9].layers, by_dim[9].score) == ((0, 1), 0.25)
    assert ranking.criterion == "either, counted apart, beyond 3σ in at least 2 of 4 layers"


@pytest.mark.parametrize(("layers", "needed"), [(12, 4), (6, 2), (4, 2), (3, 1)])
def test_more_than_a_quarter_of_the_layers_is_more_than_3_of_12(tmp_path, layers, needed):
    rng = np.random.default_rng(0)
    spread = np.linspace(-1, 1, 100)
    gains = np.array([rng.permutation(spread) for _ in range(layers)])
    gains[:needed, 5] = 9
    gains[: needed - 1, 6] = 9
    ranking = rank_by_count(make_checkpoint(tmp_path / "m", gains, np.zeros((layers, 100))))
    assert ranking.outliers == (5,)


def test_z_scores_are_signed_and_in_standard_deviations_of_their_own_vector(minilm):
    tensors = load_file(minilm / "model.safetensors")
    zscores = read_zscores(open_checkpoint(minilm))
    assert zscores.bias is not None
    for layer in range(6):
        for kind, found in (("weight", zscores.gain), ("bias", zscores.bias)):
            vector = tensors[_NORM.format(layer, kind)].astype(np.float64)
            expected = (vector - vector.mean()) / vector.std()
            np.testing.assert_allclose(found[layer], expected, rtol=1e-12)
    assert (zscores.gain < -3).any()
    assert (zscores.bias > 3).any()
    assert zscores.rows == ("0", "1", "2", "3", "4", "5")


def test_a_dimension_s_distance_is_the_smaller_of_gain_and_bias_and_never_negative(tmp_path):
    gains, biases = np.random.default_rng(0).normal(size=(2, 2, 32))
    gains[0, 5], biases[0, 5] = -50, 2
    zscores = read_zscores(make_checkpoint(tmp_path / "m", gains, biases))
    assert zscores.smaller[0, 5] == abs(zscores.bias[0, 5]) < abs(zscores.gain[0, 5])
    assert (zscores.smaller >= 0).all()


def test_a_layer_without_a_bias_is_judged_by_its_gain_alone(tmp_path):
    names = [
        _NORM.format(layer, kind) for layer, kind in ((0, "weight"), (0, "bias"), (1, "weight"))
    ]
    vectors = {name: np.random.default_rng(0).normal(size=32) for name in names}
    zscores = read_zscores(save_vectors(tmp_path / "m", "bert", vectors))
    assert np.isnan(zscores.bias[1]).all()
    assert np.isfinite(zscores.bias[0]).all()
    np.testing.assert_array_equal(zscores.smaller[1], np.abs(zscores.gain[1]))


def test_an_rms_norm_has_no_bias_at_all(tmp_path):
    names = (f"model.layers.{layer}.post_feedforward_layernorm.weight" for layer in range(3))
    vectors = {name: np.arange(16.0) ** 2 for name in names}
    zscores = read_zscores(save_vectors(tmp_path / "m", "gemma2", vectors))
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
    zscores = read_zscores(save_vectors(tmp_path / "m", "bart", tensors))
    assert zscores.rows == ("enc 0", "enc 1", "dec 0", "dec 1")
    decoder = tensors["model.decoder.layers.1.final_layer_norm.bias"].astype(np.float32)
    assert zscores.bias[3].argmax() == decoder.argmax()


def test_values_whose_squares_overflow_have_the_z_scores_of_smaller_ones(tmp_path):
    gains, biases = np.random.default_rng(0).normal(size=(2, 1, 32))
    found = []
    for number, factor in enumerate((1.0, 2.0**900)):
        vectors = {_NORM.format(0, "weight"): gains[0], _NORM.format(0, "bias"): biases[0]}
        scaled = {name: np.float64(vector * factor) for name, vector in vectors.items()}
        found.append(read_zscores(save_vectors(tmp_path / str(number), "bert", scaled)))
    np.testing.assert_allclose(found[1].gain, found[0].gain, rtol=1e-12)
    np.testing.assert_allclose(found[1].bias, found[0].bias, rtol=1e-12)
