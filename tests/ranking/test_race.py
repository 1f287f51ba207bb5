import numpy as np
import pytest
from benchmarks.race_error_rates import FIELDS, LAWS, LEAST, WANTED, race

from surgeon.ranking.race import ERROR, Damage, block_ends, find_most, run_race
from surgeon.tasks.task import Scores

_LAWS = ("exponential", "Student t, 2.5 degrees", "lognormal, σ = 1.5", "Pareto, 1.5")


@pytest.mark.parametrize("field", ["all null", "two and one nearly", "ties"])
def test_a_race_is_wrong_less_often_than_it_says(field):
    """A few; tests/benchmarks/race_error_rates.py runs a thousand of each law."""
    rng = np.random.default_rng(0)
    races = [race(FIELDS[field], LAWS[law], rng) for law in _LAWS for _ in range(15)]
    assert np.mean([wrong for wrong, _, _ in races]) <= ERROR
    named = [len(found.named) for _, found, _ in races]
    assert max(named) == (0 if field == "all null" else WANTED)


def test_a_race_ends_once_the_first_two_are_told_from_the_rest():
    rng = np.random.default_rng(0)
    clear = np.array([1.0, 0.8, *[0.01] * 12])
    wrong, found, runs = race(clear, LAWS["exponential"], rng)
    assert (wrong, found.named, found.undecided) == (False, ((0,), (1,)), ())
    assert runs < 22 * 30  # of 22 × 120


def test_what_all_texts_do_not_settle_is_said_to_be_open():
    _, found, _ = race(FIELDS["ties"], LAWS["normal"], np.random.default_rng(1))
    assert len(found.named) == WANTED
    assert {*found.named, *found.undecided} == {(0,), (1,), (2,)}


def test_a_negligible_damage_is_none_however_sure():
    field = np.full(14, 0.8 * LEAST)
    _, found, _ = race(field, lambda rng, n: rng.normal(1, 0.1, n), np.random.default_rng(0))
    assert found.named == ()


def test_no_random_removal_runs_where_no_candidate_may_do_the_least_damage():
    ran = []

    def measure(removal, texts):
        ran.append(removal)
        high = 0.2 if texts < 8 else 0.05
        return Damage(0.01, (0.0, high if removal == (1,) else 0.05), texts)

    found = run_race([(2,)], [(7,)], measure, (4, 8), wanted=1, least=0.1)
    assert found.control_range is None
    assert found.named == found.undecided == ()
    assert ran == [(2,)]
    # One that may do it at first: then they run, and what is known of chance is said.
    assert run_race([(1,)], [(7,)], measure, (4, 8), wanted=1, least=0.1).control_range is not None
    assert (7,) in ran


def test_on_all_texts_it_takes_less_to_be_named_and_what_lies_below_is_not_open():
    def told(chance, *does, wanted):
        found = {(9,): (chance, 0.0, chance + 0.06), **{(n,): one for n, one in enumerate(does)}}

        def measure(removal, texts):
            return Damage(found[removal][0], found[removal][1:], texts)

        candidates = [(number,) for number in range(len(does))]
        race = run_race(candidates, [(9,)], measure, (4, 8), wanted=wanted, least=0.1)
        return race.named, race.undecided, race.damages[0,].texts

    first = ((0,),)
    assert told(0.0, (0.12, 0.05, 0.3), wanted=1) == (first, (), 8)  # beyond chance, not beyond 0.1
    assert told(0.0, (0.08, 0.07, 0.3), wanted=1) == ((), first, 8)  # too little, or not yet enough
    assert told(0.3, (0.6, 0.5, 0.7), (0.12, -0.1, 0.15), wanted=2) == (first, (), 4)  # by chance
    assert told(0.3, (0.6, 0.5, 0.7), (0.5, 0.1, 0.9), wanted=2) == (first, ((1,),), 8)
    assert told(0.0, (0.6, 0.5, 0.7), (0.2, 0.05, 0.4), wanted=1) == (first, (), 4)  # by the first


def test_random_removals_run_on_while_one_could_do_anything():
    ran = []

    def measure(removal, texts):
        ran.append((*removal, texts))
        low, high = (0.0, 0.06) if removal == (9,) else (0.5, 0.7)
        return Damage(high, (low, high) if texts == 8 else (0.05, np.inf), texts)

    assert run_race([(0,)], [(9,)], measure, (4, 8), wanted=1, least=0.1).named == ((0,),)
    assert (9, 8) in ran


def test_what_does_less_for_certain_is_not_run_on():
    noise, ran = np.random.default_rng(0).normal(0, 0.1, (4, 64)), []

    def scores(removal, texts):
        ran.append((*removal, texts))
        return Scores(removal[0] + noise[removal[0] % 4, :texts], np.ones(texts))

    assert find_most([(1,), (5,), (4,)], scores, (16, 64), 0.05) == (5,)
    assert ran == [(1, 16), (5, 16), (4, 16)]
    noise[0] += 0.9  # so that 4 does nearly what 5 does
    find_most([(5,), (4,)], scores, (16, 64), 0.05)
    assert ran[-1][-1] == 64


def test_blocks_double_up_to_all_texts():
    assert list(block_ends(120)) == [4, 8, 16, 32, 64, 120]
    assert list(block_ends(3)) == [3]
