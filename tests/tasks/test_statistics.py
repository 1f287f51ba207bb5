import numpy as np
import pytest
from benchmarks.error_rates import HARMS, called, ever_missed, rising
from scipy.stats import binomtest, spearmanr

from surgeon.evaluation.verdict import LEAST, Effect, Evidence, heaviest_text, judge, weigh
from surgeon.evaluation.workload import Workload
from surgeon.tasks.classification import correlations
from surgeon.tasks.examples import Example, Prepared
from surgeon.tasks.registry import TASKS
from surgeon.tasks.statistics import (
    certain_part,
    chance_of_rank,
    confidence_sequence,
    control_range,
    is_firm,
    paired_interval,
    usual_range,
)
from surgeon.tasks.task import SHARE, Scores, Settings, one_minus
from surgeon.text import Texts


def _scores(total, weight=None):
    total = np.asarray(total, dtype=np.float64)
    return Scores(total, np.ones_like(total) if weight is None else np.asarray(weight, float))


def test_the_interval_covers_the_true_difference_95_times_in_100():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        base = rng.normal(3, 1, size=80)
        interval = paired_interval(_scores(base + rng.normal(0.2, 0.5, size=80)), _scores(base))
        hits += interval[0] <= 0.2 <= interval[1]
    assert 180 <= hits <= 199


def test_pairing_removes_what_both_variants_share():
    base = np.random.default_rng(0).normal(0, 100, size=50)
    low, high = paired_interval(_scores(base + 1), _scores(base))
    assert (low, high) == pytest.approx((1, 1))


def test_the_interval_is_student_s_and_of_the_unit_where_it_is_skewed_too():
    even, skewed = np.array([-1.0, 1.0]), np.random.default_rng(0).exponential(1, 20)
    student = paired_interval(_scores(even), _scores(0 * even))
    assert student == pytest.approx((-12.706, 12.706), abs=1e-3)
    low, high = paired_interval(_scores(skewed), _scores(0 * skewed))
    assert high - skewed.mean() > 1.2 * (skewed.mean() - low)
    student = 2.093 * skewed.std(ddof=1) / 20**0.5  # is not narrowed where the other end widens
    assert skewed.mean() - low == pytest.approx(student, rel=1e-3)
    assert paired_interval(_scores(-skewed), _scores(0 * skewed)) == pytest.approx((-high, -low))
    larger = paired_interval(_scores(9 * skewed), _scores(0 * skewed))
    assert larger == pytest.approx((9 * low, 9 * high))


def test_examples_weigh_by_their_scored_tokens():
    weight = np.array([1, 1, 98])
    low, high = paired_interval(_scores([0, 0, 98], weight), _scores([0, 0, 0], weight))
    assert _scores([0, 0, 98], weight).value == 0.98
    assert low < 0.98 < high


def test_no_difference_at_all_is_an_interval_of_zero():
    scores = _scores(np.arange(5.0))
    assert paired_interval(scores, scores) == (0.0, 0.0)


def _one_minus_spearman(predicted, gold):
    return one_minus(correlations(np.stack([gold, predicted], axis=1), None)["Spearman"])


def test_the_interval_of_a_score_of_the_whole_set_is_what_resampling_gives():
    """The interval of a rank correlation, against a bootstrap with scipy's own."""
    rng = np.random.default_rng(0)
    gold = rng.integers(0, 6, size=60).astype(float)
    baseline, patched = (gold + rng.normal(0, noise, size=60) for noise in (0.5, 3))
    scores = [_one_minus_spearman(predicted, gold) for predicted in (patched, baseline)]
    for score, predicted in zip(scores, (patched, baseline), strict=True):
        assert score.value == pytest.approx(1 - spearmanr(predicted, gold).statistic, abs=1e-12)
    draws = rng.integers(60, size=(600, 60))
    differences = [
        spearmanr(baseline[d], gold[d]).statistic - spearmanr(patched[d], gold[d]).statistic
        for d in draws
    ]
    expected = np.quantile(differences, [0.025, 0.975])
    interval = paired_interval(*scores)
    np.testing.assert_allclose(interval, expected, atol=0.05)
    # Equal texts count as one, and one text alone has no interval.
    places, twice = np.arange(60), np.tile(np.arange(60), 2)
    repeated = [_one_minus_spearman(np.tile(p, 2), np.tile(gold, 2)) for p in (patched, baseline)]
    assert paired_interval(*repeated, twice) == pytest.approx(interval)
    assert np.ptp(paired_interval(*scores, 0 * places)) == 0


def test_a_rank_correlation_of_what_does_not_vary_is_none():
    assert _one_minus_spearman(np.ones(5), np.arange(5.0)).value == 1.0


def test_the_control_range_spans_all_controls_and_zero_and_one_outlier_widens_one_side():
    usual = [0.004, 0.005, 0.006, 0.005, 0.004, 0.006, 0.005, 0.004, 0.006]
    low, high = control_range([*usual, 0.34])
    assert high >= 0.34
    assert low == 0.0
    assert usual_range([*usual, 0.34])[1] < 0.01
    assert usual_range([1.0, 2.0, 3.0, 4.0, 5.0]) == (-1.0, 7.0)  # 1.5 times 4 − 2 beyond these
    assert usual_range([-1.0] * 5) == (-1.0, 0.0)
    # Of more than 24 the worst is in the range all the same, and so are the fences.
    assert control_range([*usual * 4, 0.34])[1] == 0.34
    assert control_range(np.arange(41.0)) == (-20.0, 60.0)
    assert control_range([1.0] * 9 + [2.0]) == pytest.approx((0.0, 1 + 25 / 11))  # off the median


@pytest.mark.parametrize("law", list(HARMS))
def test_few_random_removals_lie_beyond_the_range_of_ten_others(law):
    """Whatever the law of their damages; the extremes alone would leave 1 in 11."""
    rng = np.random.default_rng(0)
    draws = [HARMS[law](rng, 11) for _ in range(2000)]
    beyond = np.mean([damage > control_range(rest)[1] for damage, *rest in draws])
    assert beyond < 0.055
    if law != "normal":
        assert np.mean([damage > max(rest) for damage, *rest in draws]) > 0.07


_SOUND = Evidence(60, 60)
_WORST, _FENCES, _MARGIN = 0.2, (-0.1, 0.1), 0.02


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((0.8, 1.2), "degraded"),
        ((0.1, 0.5), "inconclusive"),  # worse, but maybe as random removals are
        ((0.05, 0.15), "inconclusive"),  # the same, if the damage is within what most do
        ((0.05, 0.09), "intact"),  # real, and what random removals do
        ((-0.05, 0.09), "intact"),
        ((0.0, 0.0), "inconclusive"),  # no width, no measurement
        ((-0.5, 2.0), "inconclusive"),
        ((-1.2, -0.8), "inconclusive"),  # better, which is neither
    ],
)
def test_the_verdict_rule(interval, verdict):
    assert judge(interval, _WORST, _FENCES, _MARGIN, _SOUND, 10) == verdict


def test_a_margin_is_the_smallest_damage_that_matters():
    """Where random removals do nothing: within it is intact, and beyond it begins damage."""

    def found(interval, margin):
        return judge(interval, 0.0, (0.0, 0.0), margin, _SOUND, 10)

    assert found((0.001, 0.015), 0.02) == "intact"
    assert found((0.001, 0.015), 0.0) == "degraded"
    assert found((-0.015, 0.015), 0.01) == "inconclusive"
    assert found((0.015, 0.03), 0.02) == "inconclusive"
    assert found((0.021, 0.03), 0.02) == "degraded"


def test_a_minimal_pair_weighs_one_and_a_text_of_words_as_many_as_are_scored():
    examples = tuple(Example((n,), labels=np.arange(8)) for n in (5, 6, 6))
    prepared = Prepared(examples, 3, 0, 0, 3)
    work = Workload(TASKS["pairs"], Settings(0, 0, None, ()), Texts("d", (), b""), prepared, 64)
    assert heaviest_text(work, np.ones(2)) == 2  # the last two are one text
    assert heaviest_text(work, np.full(2, 8.0)) == 16


def test_five_texts_give_no_verdict_and_six_do():
    """The least number whose signs all agree by chance in no more than 5 of 100 cases."""
    assert 2 / 2**LEAST <= 0.05 < 2 / 2 ** (LEAST - 1)
    for interval in ((-0.01, 0.01), (0.9, 1.1)):
        given = interval, _WORST, _FENCES, _MARGIN
        assert judge(*given, Evidence(LEAST, LEAST), 10) in ("intact", "degraded")
        assert judge(*given, Evidence(600, LEAST - 1), 10) == "inconclusive"


@pytest.mark.parametrize("interval", [(-0.01, 0.01), (0.9, 1.1)])
@pytest.mark.parametrize(
    "evidence", [Evidence(60, 60, unskilled="nothing right"), Evidence(60, 60, firm=False)]
)
def test_without_skill_or_enough_changed_texts_there_is_no_verdict(interval, evidence):
    assert judge(interval, _WORST, _FENCES, _MARGIN, evidence, 10) == "inconclusive"


def test_four_controls_show_no_damage_and_five_do():
    given = (0.9, 1.1), _WORST, _FENCES, _MARGIN, _SOUND
    assert judge(*given, 4) == "inconclusive"
    assert judge(*given, 5) == "degraded"


def test_what_controls_do_by_the_number_of_texts_alone_is_not_what_they_do():
    """Flips both ways widen no range, and a damage that is there for certain does."""
    assert certain_part((-0.1, 0.2)) == 0.0
    assert certain_part((0.1, 0.2)) == 0.1
    assert certain_part((-0.2, -0.1)) == -0.1
    noisy = [
        Effect(damage, (damage - 0.1, damage + 0.1)) for damage in np.linspace(-0.08, 0.08, 10)
    ]
    assert weigh(Effect(0.0, (-0.05, 0.05)), noisy, _MARGIN, _SOUND).verdict == "inconclusive"
    sure = [Effect(damage, (damage - 0.01, damage + 0.01)) for damage in np.linspace(0.04, 0.1, 10)]
    assert weigh(Effect(0.05, (0.0, 0.09)), sure, _MARGIN, _SOUND).verdict == "intact"


@pytest.mark.parametrize(
    ("effect", "needed"),
    [
        (Effect(0.0, (-0.04, 0.04)), 120),  # no text changed: ± 4 / n
        (Effect(0.01, (-0.01, 0.03)), 240),  # twice as fine: four times as many
        (Effect(0.3, (0.1, 0.5)), 180),  # (0.2 / 0.118)² × 60: to where random removals end
        (Effect(0.02, (0.0, 0.04)), None),  # on the edge
    ],
)
def test_an_open_verdict_says_how_many_texts_would_settle_it(effect, needed):
    controls = [Effect(0.0, (0.0, 0.0))] * 9 + [Effect(0.08, (0.0, 0.1))]
    found = weigh(effect, controls, _MARGIN, _SOUND)
    assert found.verdict == "inconclusive"
    assert found.control_range[1] == pytest.approx(0.08 * 25 / 11)
    assert found.needed == needed


def test_flips_have_the_exact_interval_of_both_kinds():
    """Against scipy's Clopper and Pearson, at half the error for each kind."""
    worse, better = (binomtest(k, 100).proportion_ci(0.975) for k in (9, 2))
    differences = np.array([1.0] * 9 + [-1.0] * 2 + [0.0] * 89)
    low, high = paired_interval(*_answers(differences))
    assert (low, high) == pytest.approx((worse.low - better.high, worse.high - better.low))
    assert paired_interval(*_answers(np.zeros(240)))[1] == pytest.approx(4.38 / 240, rel=0.01)
    assert paired_interval(*_answers(np.ones(9)))[1] == 1.0


def _answers(differences, weight=None):
    ones = np.ones_like(differences) if weight is None else weight
    return [Scores(d, ones, bounds=SHARE) for d in (differences, np.zeros_like(differences))]


@pytest.mark.parametrize(("scale", "words"), [(1.0, 9.0), (0.5, 1.0)])
def test_bounded_differences_other_than_flips_are_bet_on_where_most_are_zero(scale, words):
    few = scale * np.array([1.0] * 9 + [-1.0] * 2 + [0.0] * 89)
    many = np.where(np.arange(100) % 3, few[::-1], scale)
    weight = np.full(100, words)
    bet, unbounded = confidence_sequence(*_answers(few, weight)), (many, 0 * many)
    assert paired_interval(*_answers(few, weight)) == pytest.approx(bet)
    student = paired_interval(*(_scores(values, weight) for values in unbounded))
    assert paired_interval(*_answers(many, weight)) == pytest.approx(student)
    weight[50:] = 17.0  # in whatever order
    one, other = (confidence_sequence(*_answers(few[::n], weight[::n])) for n in (1, -1))
    assert one == pytest.approx(other)


def test_equal_texts_count_as_one():
    """8 texts × 20 with one flip: as wide as 8 texts."""
    differences = np.repeat([1.0, *[0.0] * 7], 20)
    low, high = paired_interval(*_answers(differences), np.repeat(np.arange(8), 20))
    once = paired_interval(*_answers(differences[::20]))
    assert low < 0
    assert high > 0.35
    assert high - low > 0.8 * (once[1] - once[0])
    values = np.random.default_rng(0).normal(1, 1, 12)
    thrice = [_scores(np.tile(v, 3)) for v in (values, 0 * values)]
    single = paired_interval(_scores(values), _scores(0 * values))
    assert paired_interval(*thrice, np.tile(np.arange(12), 3)) == pytest.approx(single)


def test_a_few_changed_texts_make_no_firm_interval_of_what_has_no_bounds():
    losses = np.zeros(100)
    losses[:3] = 5.0
    assert not is_firm(_scores(losses), _scores(0 * losses))
    assert is_firm(*_answers((losses > 0) * 1.0))
    assert is_firm(_scores(losses + 1), _scores(0 * losses))
    assert is_firm(_scores(losses[:4]), _scores(0 * losses[:4]))
    assert is_firm(_scores(np.repeat(losses, 10)), _scores(np.zeros(1000)))  # 30 of a thousand


@pytest.mark.parametrize("law", ["flips in 2%", "drift, 2% of texts", "damage on 10% of texts"])
def test_early_stopping_is_wrong_as_seldom_as_it_says(law):
    """A small version of tests/benchmarks/error_rates.py: 5% of 40 runs, and what chance adds."""
    assert ever_missed(law, 40) <= 0.05


def test_a_true_rise_of_the_error_rate_is_not_called_intact():
    draw = rising(0.05)
    assert called("intact", draw, SHARE, 30, 40) == 0
    assert called("intact", draw, SHARE, 240, 40) <= 0.05
    assert called("degraded", draw, SHARE, 872, 20) > 0.5


def test_no_text_changed_in_the_first_look_settles_nothing():
    assert confidence_sequence(*_answers(np.arange(9999.0).clip(max=1)))[1] == 1.0  # all but one
    low, high = confidence_sequence(*_answers(np.zeros(32)))
    assert low < -0.1 < 0.1 < high
    assert confidence_sequence(*_answers(np.zeros(32)), heaviest=4.0)[1] > 2 * high
    assert confidence_sequence(_scores(np.zeros(32)), _scores(np.zeros(32))) == (-np.inf, np.inf)


def test_a_look_at_any_time_costs_less_than_twice_the_width_and_wants_a_damage_that_is_spread():
    damages = np.random.default_rng(0).normal(1, 1, 100)
    looks = [
        f(_scores(damages), _scores(0 * damages)) for f in (confidence_sequence, paired_interval)
    ]
    assert 1.7 < np.ptp(looks[0]) / np.ptp(looks[1]) < 1.8
    damages[3:] = 0
    assert confidence_sequence(_scores(damages), _scores(0 * damages)) == (-np.inf, np.inf)


def test_the_chance_of_a_rank_is_never_zero():
    assert chance_of_rank(1.0, [0.1] * 9) == 0.1
    assert chance_of_rank(0.0, [0.1] * 9) == 1.0
