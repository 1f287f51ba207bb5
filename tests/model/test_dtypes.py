from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgeon.model.tensors import FLOATS, numpy_dtype, round_once

_NARROW = [numpy_dtype(name) for name in FLOATS if name != "F64"]


@pytest.mark.parametrize("dtype", _NARROW, ids=str)
@given(data=st.data())
def test_rounding_takes_the_nearest_value_and_ties_to_even(dtype, data):
    """Against exact rational arithmetic, at and around midpoints, where rounding twice errs."""
    bits = np.dtype(f"u{dtype.itemsize}")
    low_bits = data.draw(st.integers(0, 2 ** (8 * dtype.itemsize) - 2))
    low, high = (float(np.array(b, bits).view(dtype)) for b in (low_bits, low_bits + 1))
    if not (np.isfinite(low) and np.isfinite(high)):
        return
    middle = (low + high) / 2
    value = data.draw(
        st.sampled_from([middle, np.nextafter(middle, low), np.nextafter(middle, high), low, high])
    )
    got = float(round_once(np.array([value]), dtype)[0])
    distance_low, distance_high = (abs(Fraction(value) - Fraction(x)) for x in (low, high))
    if distance_low == distance_high and low != high:
        expected = low if low_bits % 2 == 0 else high
    else:
        expected = low if distance_low < distance_high else high
    assert got == expected


def test_a_plain_cast_of_float64_rounds_twice():
    """Why round_once exists: this value lies just above a midpoint."""
    value = np.array([1 + 2**-8 + 2**-40])
    bfloat16 = np.dtype(ml_dtypes.bfloat16)
    assert float(value.astype(bfloat16)[0]) == 1.0
    assert float(round_once(value, bfloat16)[0]) == 1 + 2**-7


@pytest.mark.parametrize("dtype", _NARROW, ids=str)
def test_a_value_beyond_the_range_is_not_finite(dtype):
    assert not np.isfinite(round_once(np.array([1e300, -1e300]), dtype).astype(np.float64)).any()
