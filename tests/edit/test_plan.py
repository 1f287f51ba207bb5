import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from artifacts import plan_of
from families import save_family
from safetensors.numpy import load_file, save_file

from surgeon import read_record
from surgeon.edit.changes import new_values
from surgeon.errors import CheckpointError, SelectionError


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"random": 17}, "`random` 17: there are 16 in all"),
        ({"remove_outliers": 17, "relax": True}, "there are 16 in all"),
        ({"dims": (1,), "mode": "scale", "factor": 1e39}, "does not fit float32"),
    ],
)
def test_what_the_model_does_not_have_is_refused(tiny, fields, complaint):
    with pytest.raises(SelectionError, match=complaint):
        plan_of(tiny("bert"), **fields)


def test_too_few_outliers_are_refused_with_candidates_and_the_options_that_take_them(minilm):
    asked = {"remove_outliers": 2, "method": "layernorm"}
    with pytest.raises(SelectionError) as caught:
        plan_of(minilm, **asked)
    message = str(caught.value)
    assert "267 (2 of 6 layers), 127 (2 of 6 layers)" in message
    assert "`dims` 267,127" in message
    assert "`relax`" in message
    assert plan_of(minilm, **asked, relax=True).dims == (267, 127)  # strongest first
    assert plan_of(minilm, **asked, min_layers=2).dims == (267, 127)  # which meet that criterion


def test_random_dims_depend_on_the_seed_alone(tiny):
    drawn = [plan_of(tiny("bert"), random=4, seed=seed).dims for seed in (0, 0, 1, 2)]
    assert drawn[0] == drawn[1]
    assert len({*drawn}) > 1
    assert all(len(set(dims)) == 4 and max(dims) < 16 for dims in drawn)


def test_a_packed_target_is_an_error_that_names_the_tensor(tiny, tmp_path):
    tensors = load_file(tiny("bert") / "model.safetensors")
    name = "bert.encoder.layer.1.output.LayerNorm.weight"
    tensors[name] = tensors[name].astype(np.int8)
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((tiny("bert") / "config.json").read_bytes())
    with pytest.raises(CheckpointError, match=rf"{name} is stored as I8"):
        plan_of(tmp_path, dims=(1,))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("mode", ["zero", "scale", "mean"])
def test_a_weight_is_never_copied_to_float64_as_a_whole(mode, axis):
    weight = np.ones((2048, 1024), dtype=np.float16)
    tracemalloc.start()
    new_values("w", weight, axis, (3, 9), mode, 0.5, 0.0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < weight.nbytes / 8


@pytest.mark.parametrize(("mode", "factor"), [("zero", None), ("scale", 0.5), ("mean", None)])
def test_a_mode_acts_on_the_gain_that_the_model_multiplies_by(mode, factor):
    gain = np.random.default_rng(0).normal(size=64).astype(np.float32)
    effective = gain.astype(np.float64) + 1
    mean = 0 * effective + effective.mean()
    wanted = {"zero": 0 * effective, "scale": effective / 2, "mean": mean}[mode]
    stored = (wanted - 1).astype(np.float32)[[3, 9]]
    np.testing.assert_array_equal(new_values("g", gain, 0, (3, 9), mode, factor, 1.0), stored)


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_a_factor_of_one_changes_no_bit(offset):
    values = np.array([1e-30, -0.0, 0.3, -7.0], dtype=np.float32)
    same = new_values("v", values, 0, (0, 1, 2, 3), "scale", 1.0, offset)
    assert (same == values).all()
    assert offset or same.tobytes() == values.tobytes()


def test_a_plan_that_changes_nothing_counts_nothing(tiny):
    assert plan_of(tiny("bert"), dims=(1,), mode="scale", factor=1.0).parameters_changed == 0


@pytest.fixture
def in_blocks(tmp_path):
    """Make a tiny Llama whose output weights are FP8, with scales as DeepSeek stores them."""

    def make(scales):
        save_family("llama", tmp_path)
        path = tmp_path / "model.safetensors"
        tensors = load_file(path)
        for name in [name for name in tensors if "down_proj" in name]:
            tensors[name] = tensors[name].astype(ml_dtypes.float8_e4m3fn)
            tensors[f"{name}_scale_inv"] = np.ones(scales, dtype=np.float32)
        save_file(tensors, path)
        return tmp_path

    return make


def test_a_mean_over_scales_that_differ_is_refused_and_zero_and_a_factor_are_not(in_blocks):
    model = in_blocks((2, 2))
    with pytest.raises(CheckpointError, match=r"_proj\.weight is quantized, by the 4 scales of"):
        plan_of(model, dims=(3,), mode="mean")
    for edit in plan_of(model, dims=(3,)).edits:
        assert not edit.new.astype(np.float64).any()
    for edit in plan_of(model, dims=(3,), mode="scale", factor=0.5).edits:
        assert edit.new.dtype == ml_dtypes.float8_e4m3fn
        assert edit.changed
    assert len(plan_of(in_blocks((1,)), dims=(3,), mode="mean").edits) == 2  # of one scale


@pytest.mark.parametrize(
    ("family", "told"),
    [("gemma2", "RMSNorm has no bias"), ("llama", "the dense layers have no bias here")],
)
def test_a_bias_that_is_not_there_is_said_and_the_gains_are_edited(tmp_path, done, family, told):
    source, out = tmp_path / "source", tmp_path / "out"
    save_family(family, source)
    plan = plan_of(source, dims=(3,))
    assert {edit.param for edit in plan.edits} == {"gain"}
    assert list(plan.notes) == plan.to_json()["notes"] == [f"{told}: gains alone"]
    shown = done("patch", source, "--dims", "3", "--no-onnx", "-o", out).out
    assert f"{told[1:]}: gains alone." in shown
    assert read_record(out).notes == plan.notes
    assert f"; {told}: gains alone.\n" in (out / "README.md").read_text()
    assert plan_of(source, dims=(3,), params=("gain",)).notes == ()
    with pytest.raises(SelectionError, match=f"`params` bias: .*{told}; use `params` gain"):
        plan_of(source, dims=(3,), params=("bias",))


def test_a_norm_with_a_bias_has_no_note(tiny):
    assert plan_of(tiny("bert"), dims=(3,)).notes == ()
