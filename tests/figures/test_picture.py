import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rankings import random_ranking

from surgeon.figures import picture, scan


@given(st.integers(1, 9000), st.data())
def test_an_outlier_survives_the_pooling_with_its_sign_and_its_name(hidden, data):
    dim = data.draw(st.integers(0, hidden - 1))
    zscores = np.random.default_rng(0).uniform(-3, 3, (2, hidden))
    zscores[1, dim] = -9
    raster = picture.pooled(zscores)
    assert raster.values.shape[1] <= picture.MAX_COLUMNS
    assert raster.values[1, dim // raster.width] == -9
    assert raster.dims[1, dim // raster.width] == dim
    assert (raster.values[0] != -9).all()


def test_what_fits_is_not_pooled():
    zscores = np.random.default_rng(0).normal(size=(3, picture.MAX_COLUMNS))
    np.testing.assert_array_equal(picture.pooled(zscores).values, zscores)


def test_a_vector_that_is_not_there_stays_absent_when_pooled():
    zscores = np.zeros((2, 4096))
    zscores[1] = np.nan
    raster = picture.pooled(zscores)
    assert np.isnan(raster.values[1, :-1]).all()
    assert np.isfinite(raster.values[0]).all()


@pytest.mark.parametrize(
    ("outliers", "words"),
    [
        ((), "random: no dimension meets the criterion"),
        ((7,), "random: 1 outlier dimension (7), by weights, not measured"),
        ((7, 9), "random: 2 outlier dimensions (7, 9), by weights, not measured"),
        (
            tuple(range(10)),
            "random: 10 outlier dimensions (0, 1, 2, 3, 4, 5, 6, 7, …), by weights, not measured",
        ),
    ],
)
def test_the_headline_says_the_result_in_words(outliers, words):
    ranking, _ = random_ranking(hidden=64, outliers=outliers)
    assert scan.headline(ranking) == words


def test_the_subtitle_says_how_sure_the_ranking_is():
    assert "not measured" in scan.words(*random_ranking(hidden=64))[-1]
    measured = scan.words(*random_ranking(hidden=64, measured=True))[-1]
    assert "120 texts of built-in English sentences" in measured


def test_candidates_are_named_only_where_there_are_no_outliers():
    found, _ = random_ranking(hidden=64, outliers=(7, 9))
    assert scan.named(found) == [7, 9]
    none, _ = random_ranking(hidden=64)
    assert scan.named(none) == [d.dim for d in none.dimensions[:5]]


def test_a_scale_that_would_hide_the_threshold_becomes_logarithmic():
    _, _, damage = scan.draw_ranking(*random_ranking(hidden=64, measured=True)).rows[-1]
    assert damage.log_above is None
    wide = random_ranking(hidden=64, outliers=(7,), measured=True)
    _, _, damage = scan.draw_ranking(*wide).rows[-1]
    assert damage.log_above == wide[0].measured.min_damage


_LABELS = st.lists(
    st.tuples(st.floats(0, 1000), st.floats(1, 40)), min_size=1, max_size=20
).map(sorted)  # fmt: skip


@given(_LABELS)
def test_labels_keep_their_order_and_never_meet_nor_leave_the_axis(labels):
    wanted, widths = zip(*labels, strict=True)
    centres = picture.spread(wanted, widths, 0, 1000, 5)
    starts, ends = centres - np.divide(widths, 2), centres + np.divide(widths, 2)
    assert (starts[1:] - ends[:-1] >= 5 - 1e-6).all()
    assert starts[0] >= -1e-6
    assert ends[-1] <= 1000 + 1e-6


@pytest.mark.parametrize(
    ("wanted", "centres"),
    [([100, 300, 800], [100, 300, 800]), ([500, 500, 500], [455, 500, 545])],
)
def test_labels_stay_where_they_belong_and_in_a_crowd_move_evenly_to_both_sides(wanted, centres):
    np.testing.assert_allclose(picture.spread(wanted, [40, 40, 40], 0, 1000, 5), centres)
