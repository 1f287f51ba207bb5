import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from surgeon.figures.content import spread

_LABELS = st.lists(
    st.tuples(st.floats(0, 1000), st.floats(1, 40)), min_size=1, max_size=20
).map(sorted)  # fmt: skip


@given(_LABELS)
def test_labels_keep_their_order_and_never_meet_nor_leave_the_axis(labels):
    wanted, widths = zip(*labels, strict=True)
    centres = spread(wanted, widths, 0, 1000, 5)
    starts, ends = centres - np.divide(widths, 2), centres + np.divide(widths, 2)
    assert (starts[1:] - ends[:-1] >= 5 - 1e-6).all()
    assert starts[0] >= -1e-6
    assert ends[-1] <= 1000 + 1e-6


def test_labels_with_room_stay_where_they_belong():
    np.testing.assert_allclose(spread([100, 300, 800], [40, 40, 40], 0, 1000, 5), [100, 300, 800])


def test_labels_in_a_crowd_move_evenly_to_both_sides():
    np.testing.assert_allclose(spread([500, 500, 500], [40, 40, 40], 0, 1000, 5), [455, 500, 545])
