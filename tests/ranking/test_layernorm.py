import json
import tracemalloc

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from surgeon import open_checkpoint, rank_by_layernorm
from surgeon.errors import CheckpointError, SelectionError
from surgeon.ranking.zscores import slice_norms


def make_checkpoint(folder, gains, biases):
    """A BERT of output LayerNorms alone, gains and biases of shape (layers, hidden)."""
    folder.mkdir()
    tensors = {}
    for layer, (gain, bias) in enumerate(zip(gains, biases, strict=True)):
        tensors[f"encoder.layer.{layer}.output.LayerNorm.weight"] = np.float32(gain)
        tensors[f"encoder.layer.{layer}.output.LayerNorm.bias"] = np.float32(bias)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    return open_checkpoint(folder)


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
    ],
)
def test_options_without_sense_are_refused(tmp_path, vectors, options):
    with pytest.raises(SelectionError, match=r"--sigma|--min-layers"):
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
