import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rankings import random_ranking

from surgeon.figures import content


@given(st.integers(1, 9000), st.data())
def test_an_outlier_survives_the_pooling_with_its_sign_and_its_name(hidden, data):
    dim = data.draw(st.integers(0, hidden - 1))
    zscores = np.random.default_rng(0).uniform(-3, 3, (2, hidden))
    zscores[1, dim] = -9
    raster = content.pooled(zscores)
    assert raster.values.shape[1] <= content.MAX_COLUMNS
    assert raster.values[1, dim // raster.width] == -9
    assert raster.dims[1, dim // raster.width] == dim
    assert (raster.values[0] != -9).all()


def test_what_fits_is_not_pooled():
    zscores = np.random.default_rng(0).normal(size=(3, content.MAX_COLUMNS))
    np.testing.assert_array_equal(content.pooled(zscores).values, zscores)


def test_a_vector_that_is_not_there_stays_absent_when_pooled():
    zscores = np.zeros((2, 4096))
    zscores[1] = np.nan
    raster = content.pooled(zscores)
    assert np.isnan(raster.values[1, :-1]).all()
    assert np.isfinite(raster.values[0]).all()


@pytest.mark.parametrize(
    ("outliers", "words"),
    [
        ((), "random: no dimension meets the criterion"),
        ((7,), "random: 1 outlier dimension (7)"),
        ((7, 9), "random: 2 outlier dimensions (7, 9)"),
        (tuple(range(10)), "random: 10 outlier dimensions (0, 1, 2, 3, 4, 5, 6, 7, …)"),
    ],
)
def test_the_headline_says_the_result_in_words(outliers, words):
    ranking, _ = random_ranking(hidden=64, outliers=outliers)
    assert content.headline(ranking) == words


def test_the_subtitle_says_how_sure_the_ranking_is():
    assert "not measured" in content.subtitle(*random_ranking(hidden=64))[-1]
    measured = content.subtitle(*random_ranking(hidden=64, measured=True))[-1]
    assert "120 texts of built-in English sentences" in measured


def test_candidates_are_named_only_where_there_are_no_outliers():
    found, _ = random_ranking(hidden=64, outliers=(7, 9))
    assert content.named(found) == [7, 9]
    none, _ = random_ranking(hidden=64)
    assert content.named(none) == [d.dim for d in none.dimensions[:5]]


def test_a_scale_that_would_hide_the_threshold_becomes_logarithmic():
    plain, _ = random_ranking(hidden=64, measured=True)
    wide, _ = random_ranking(hidden=64, outliers=(7,), measured=True)
    assert content.log_threshold(plain.dimensions, plain.measured) is None
    assert content.log_threshold(wide.dimensions, wide.measured) == wide.measured.min_damage
