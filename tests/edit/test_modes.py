import tracemalloc

import numpy as np
import pytest

from surgeon.edit.modes import new_values

GAIN = np.random.default_rng(0).normal(size=64).astype(np.float32)


@pytest.mark.parametrize(("mode", "factor"), [("zero", None), ("scale", 0.5), ("mean", None)])
def test_a_mode_acts_on_the_gain_that_the_model_multiplies_by(mode, factor):
    effective = GAIN.astype(np.float64) + 1
    wanted = {
        "zero": 0 * effective,
        "scale": effective / 2,
        "mean": 0 * effective + effective.mean(),
    }
    stored = (wanted[mode] - 1).astype(np.float32)[[3, 9]]
    np.testing.assert_array_equal(new_values(GAIN, 0, (3, 9), mode, factor, 1.0), stored)


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_a_factor_of_one_changes_no_bit(offset):
    tiny = np.array([1e-30, -0.0, 0.3, -7.0], dtype=np.float32)
    same = new_values(tiny, 0, (0, 1, 2, 3), "scale", 1.0, offset)
    assert (same == tiny).all()
    if not offset:
        assert same.tobytes() == tiny.tobytes()


def test_zero_is_positive_zero_where_there_is_no_offset():
    assert new_values(-GAIN, 0, (3, 9), "zero", None).tobytes() == bytes(8)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("mode", ["zero", "scale", "mean"])
def test_a_weight_is_never_copied_to_float64_as_a_whole(mode, axis):
    weight = np.ones((2048, 1024), dtype=np.float16)
    tracemalloc.start()
    new_values(weight, axis, (3, 9), mode, 0.5)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < weight.nbytes / 8
