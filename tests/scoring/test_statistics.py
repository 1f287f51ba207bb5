import numpy as np
import pytest
from scipy.stats import spearmanr

from surgeon.evaluation.evidence import LEAST, Evidence
from surgeon.evaluation.verdict import judge
from surgeon.scoring.statistics import (
    chance_of_rank,
    control_range,
    paired_interval,
    usual_range,
)
from surgeon.scoring.tasks import Scores
from surgeon.scoring.tasks.similarity import one_minus_spearman


def _scores(total, weight=None):
    total = np.asarray(total, dtype=np.float64)
    return Scores(total, np.ones_like(total) if weight is None else np.asarray(weight, float))


def test_the_interval_covers_the_true_difference_95_times_in_100():
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        base = rng.normal(3, 1, size=80)
        interval = paired_interval(
            _scores(base + rng.normal(0.2, 0.5, size=80)), _scores(base), trial
        )
        hits += interval[0] <= 0.2 <= interval[1]
    assert 180 <= hits <= 199


def test_pairing_removes_what_both_variants_share():
    base = np.random.default_rng(0).normal(0, 100, size=50)
    low, high = paired_interval(_scores(base + 1), _scores(base), 0)
    assert (low, high) == pytest.approx((1, 1))


def test_examples_weigh_by_their_scored_tokens():
    weight = np.array([1, 1, 98])
    low, high = paired_interval(_scores([0, 0, 98], weight), _scores([0, 0, 0], weight), 0)
    assert _scores([0, 0, 98], weight).value == 0.98
    assert low < 0.98 < high <= 1.0


def test_the_interval_depends_on_the_seed_alone():
    one, two = (_scores(np.random.default_rng(s).normal(size=30)) for s in (1, 2))
    assert paired_interval(one, two, 3) == paired_interval(one, two, 3)


def test_no_difference_at_all_is_an_interval_of_zero():
    scores = _scores(np.arange(5.0))
    assert paired_interval(scores, scores, 0) == (0.0, 0.0)


def test_a_statistic_of_the_whole_set_is_taken_anew_in_each_resample():
    """The interval of a rank correlation, against a loop with scipy's own."""
    rng = np.random.default_rng(0)
    gold = rng.integers(0, 6, size=60).astype(float)
    baseline, patched = (gold + rng.normal(0, noise, size=60) for noise in (0.5, 3))
    scores = [Scores(predicted, gold, one_minus_spearman) for predicted in (patched, baseline)]
    for score, predicted in zip(scores, (patched, baseline), strict=True):
        assert score.value == pytest.approx(1 - spearmanr(predicted, gold).statistic, abs=1e-12)
    draws = rng.integers(60, size=(2000, 60))
    differences = [
        spearmanr(baseline[d], gold[d]).statistic - spearmanr(patched[d], gold[d]).statistic
        for d in draws
    ]
    expected = np.quantile(differences, [0.025, 0.975])
    np.testing.assert_allclose(paired_interval(*scores, 0), expected, atol=0.02)


def test_a_rank_correlation_of_what_does_not_vary_is_none():
    constant = Scores(np.ones(5), np.arange(5.0), one_minus_spearman)
    assert constant.value == 1.0


def test_the_control_range_spans_all_controls_and_zero():
    low, high = control_range([0.2, 0.3, 0.25])
    assert low == 0.0
    assert high >= 0.3


def test_one_control_that_hits_an_outlier_does_not_widen_the_lower_side():
    usual = [0.004, 0.005, 0.006, 0.005, 0.004, 0.006, 0.005, 0.004, 0.006]
    low, high = control_range([*usual, 0.34])
    assert high == 0.34
    assert low == 0.0
    assert usual_range([*usual, 0.34])[1] < 0.01


def test_a_random_removal_seldom_lies_beyond_the_range_of_ten_others():
    """The documented rate for normal damages, one in 37; the extremes alone give one in 11."""
    rng = np.random.default_rng(0)
    draws = rng.normal(5, 1, size=(20_000, 11))
    beyond = np.mean([row[10] > control_range(row[:10])[1] for row in draws])
    assert 1 / 45 < beyond < 1 / 31
    assert np.mean(draws[:, 10] > draws[:, :10].max(1)) > 1 / 12


_USUAL = (0.0125, 0.0125, 0.0875, 0.0875)  # their fences lie at -0.1 and 0.2


@pytest.mark.parametrize(
    ("damage", "interval", "controls", "verdict"),
    [
        (1.0, (0.8, 1.2), _USUAL, "degraded"),
        (0.3, (0.1, 0.5), _USUAL, "inconclusive"),  # worse, but maybe as random removals are
        (0.1, (0.05, 0.15), _USUAL, "intact"),  # real, and what random removals do
        (0.0, (0.0, 0.0), (0.0, 0.0), "intact"),  # nothing happened
        (0.21, (-0.01, 0.4), _USUAL, "intact"),  # none found, measured finely enough
        (0.9, (-0.5, 2.0), _USUAL, "inconclusive"),  # measured too coarsely
        (-1.0, (-1.2, -0.8), _USUAL, "inconclusive"),  # better, which is neither
        (-0.05, (-0.06, -0.04), _USUAL, "intact"),
        (0.1, (0.05, 0.15), (*_USUAL, *_USUAL, 0.8), "intact"),  # one control hit an outlier:
        (0.5, (0.45, 0.55), (*_USUAL, *_USUAL, 0.8), "inconclusive"),  # it excuses no damage,
        (0.9, (0.82, 1.0), (*_USUAL, *_USUAL, 0.8), "degraded"),  # which may exceed it too
    ],
)
def test_the_verdict_rule(damage, interval, controls, verdict):
    assert judge(damage, interval, controls, Evidence(60, 60)) == verdict


@pytest.mark.parametrize("damage", [0.0, 1.0])
def test_five_differences_give_no_verdict_and_six_do(damage):
    """The least number whose signs all agree by chance in no more than 5 of 100 cases."""
    assert 2 / 2**LEAST <= 0.05 < 2 / 2 ** (LEAST - 1)
    result = damage, (damage, damage), _USUAL
    assert judge(*result, Evidence(LEAST, LEAST)) in ("intact", "degraded")
    assert judge(*result, Evidence(600, LEAST - 1)) == "inconclusive"


def test_a_baseline_without_skill_is_never_intact_but_may_be_degraded():
    unskilled = Evidence(60, 60, "nothing right")
    assert judge(0.0, (0.0, 0.0), (0.0, 0.0), unskilled) == "inconclusive"
    assert judge(1.0, (0.8, 1.2), _USUAL, unskilled) == "degraded"


def test_the_chance_of_a_rank_is_never_zero():
    assert chance_of_rank(1.0, [0.1] * 9) == 0.1
    assert chance_of_rank(0.0, [0.1] * 9) == 1.0
