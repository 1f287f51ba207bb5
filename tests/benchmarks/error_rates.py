"""How often a verdict is wrong: simulated laws, by surgeon's own intervals and rule.

    python tests/benchmarks/error_rates.py [runs]

prints the tables that docs say: intervals of a fixed number of texts and of early stopping,
"intact" where the error rate truly rises, and "degraded" for removals that are like the controls.
"""

import sys
from functools import partial

import numpy as np

from surgeon.evaluation.blocks import _GROWTH, _LOOK
from surgeon.evaluation.verdict import Evidence, effect_of, weigh
from surgeon.tasks.statistics import (
    ALPHA,
    EARLY,
    confidence_sequence,
    control_range,
    paired_interval,
)
from surgeon.tasks.task import MARGIN, SHARE, Scores

AT_A_LOOK = partial(confidence_sequence, alpha=EARLY)
AT_THE_END = partial(paired_interval, alpha=ALPHA - EARLY)
MOST = 2048
CONTROLS = 10

# Differences per text by law: (draw, true mean, bounds); the scale of unbounded ones is nats.
LAWS = {
    **{
        f"flips in {p:.0%}": (lambda r, n, p=p: (r.random(n) < p) * 1.0, p, SHARE)
        for p in (0.01, 0.02, 0.05, 0.10, 0.30)
    },
    "flips both ways, 5% each": (
        lambda r, n: (r.random(n) < 0.05) * 1.0 - (r.random(n) < 0.05),
        0.0,
        SHARE,
    ),
    "F1, 5% of texts lose a part": (lambda r, n: (r.random(n) < 0.05) * r.random(n), 0.025, SHARE),
    "drift, beta(1, 9)": (lambda r, n: r.beta(1, 9, n), 0.1, (0.0, 2.0)),
    "drift, 2% of texts": (lambda r, n: (r.random(n) < 0.02) * r.random(n), 0.01, (0.0, 2.0)),
    "normal": (lambda r, n: r.normal(0.5, 1, n), 0.5, None),
    "exponential": (lambda r, n: r.exponential(1, n), 1.0, None),
    "damage on 2% of texts": (lambda r, n: (r.random(n) < 0.02) * r.exponential(50, n), 1.0, None),
    "damage on 10% of texts": (lambda r, n: (r.random(n) < 0.1) * r.exponential(10, n), 1.0, None),
    "Student t, 2.5 degrees": (lambda r, n: 0.5 + r.standard_t(2.5, n), 0.5, None),
    "lognormal, σ = 1.5": (lambda r, n: r.lognormal(0, 1.5, n), np.exp(1.125), None),
}
HEAVY = ("Student t, 2.5 degrees", "lognormal, σ = 1.5")
HARMS = {
    "normal": lambda r, n: r.normal(0, 0.02, n),
    "half-normal": lambda r, n: abs(r.normal(0, 0.02, n)),
    "lognormal, σ = 1": lambda r, n: 0.02 * r.lognormal(0, 1, n),
    "lognormal, σ = 2": lambda r, n: 0.02 * r.lognormal(0, 2, n),
    "Pareto, 1.5": lambda r, n: 0.02 * r.pareto(1.5, n),
}


def scores(differences, bounds):
    """Return the scores of a variant and of a baseline of zeros."""
    ones = np.ones_like(differences)
    return Scores(differences, ones, bounds=bounds), Scores(0 * differences, ones, bounds=bounds)


def missed(law, count, runs, seed=0):
    """Return how often the interval of a fixed number of texts misses the true mean."""
    draw, truth, bounds = LAWS[law]
    rng, wrong = np.random.default_rng([seed, count]), 0
    for _ in range(runs):
        low, high = paired_interval(*scores(draw(rng, count), bounds))
        wrong += not low <= truth <= high
    return wrong / runs


def looks():
    """Yield the numbers of texts at which an evaluation that may stop early looks."""
    seen = 0
    for count in range(_LOOK, MOST + 1, _LOOK):
        if count >= seen * (1 + _GROWTH):
            seen = count
            yield count


def ever_missed(law, runs, seed=0):
    """Return how often the interval misses the true mean at any look, or at the end."""
    draw, truth, bounds = LAWS[law]
    rng, wrong = np.random.default_rng(seed), 0
    for _ in range(runs):
        differences = draw(rng, MOST)
        intervals = [AT_A_LOOK(*scores(differences[:count], bounds)) for count in looks()]
        intervals.append(AT_THE_END(*scores(differences, bounds)))
        wrong += not all(low <= truth <= high for low, high in intervals)
    return wrong / runs


def flips(rng, up, down, shape):
    """Return answers that got worse (1) and better (−1)."""
    drawn = rng.random(shape)
    return (drawn < up) * 1.0 - (drawn > 1 - down)


def verdict(patched, controls, bounds, measure=paired_interval, margin=MARGIN):
    """Judge rows of differences, (texts,) and (controls, texts)."""
    effects = [effect_of(*scores(row, bounds), measure) for row in (patched, *controls)]
    return weigh(effects[0], effects[1:], margin, Evidence(patched.size, patched.size)).verdict


def called(word, draw, bounds, count, runs, seed=0, margin=MARGIN):
    """Return how often a word is the verdict at a fixed number of texts."""
    rng = np.random.default_rng([seed, count])
    found = [verdict(*draw(rng, count), bounds, margin=margin) for _ in range(runs)]
    return sum(one == word for one in found) / runs


def settled_as(word, draw, bounds, runs, seed=0, margin=MARGIN):
    """Return how often an evaluation stops early with a word, and the median number of texts."""
    rng, found, stops = np.random.default_rng(seed), 0, []
    for _ in range(runs):
        patched, controls = draw(rng, MOST)
        for count in looks():
            seen = patched[:count], controls[:, :count]
            said = verdict(*seen, bounds, AT_A_LOOK, margin)
            if said != "inconclusive":
                found += said == word
                stops.append(count)
                break
        else:
            found += verdict(patched, controls, bounds, AT_THE_END, margin) == word
            stops.append(MOST)
    return found / runs, int(np.median(stops))


def rising(rate, noise=0.02, control=0.01):
    """Return what draws an error rate that truly rises, and controls without an effect."""

    def draw(rng, count):
        patched = flips(rng, noise / 2, noise / 2, count)
        patched[rng.random(count) < rate] = 1.0
        return patched, flips(rng, control / 2, control / 2, (CONTROLS, count))

    return draw


def harmless(law, controls=CONTROLS):
    """Return what draws a removal whose damage is of the same law as those of the controls."""

    def draw(rng, count):
        means = HARMS[law](rng, controls + 1)[:, None]
        difficulty = rng.exponential(1, count)
        rows = (means + rng.normal(0, 0.05, (controls + 1, count))) * difficulty
        return rows[0], rows[1:]

    return draw


def beyond(law, controls, runs, seed=0):
    """Return how often a removal's true damage lies beyond the range of the controls' own."""
    damages = HARMS[law](np.random.default_rng([seed, controls]), (runs, controls + 1))
    return sum(own > control_range(others)[1] for own, *others in damages) / runs


def main(runs):
    """Print all tables."""
    counts = (6, 10, 30, 240)
    print(f"Intervals of 95% that miss the true mean, in {runs} runs", flush=True)
    for law in LAWS:
        rates = "  ".join(f"n = {n}: {missed(law, n, runs):.3f}" for n in counts)
        print(f"  {law:28}{rates}  early stop: {ever_missed(law, runs):.3f}", flush=True)
    print("\n“intact” at a true rise of the error rate by 5 points (10 controls)", flush=True)
    for noise, control in ((0.0, 0.0), (0.02, 0.01), (0.10, 0.05)):
        draw = rising(0.05, noise, control)
        rates = "  ".join(
            f"n = {n}: {called('intact', draw, SHARE, n, runs):.3f}"
            for n in (6, 10, 30, 100, 240, 872)
        )
        early, median = settled_as("intact", draw, SHARE, runs)
        print(
            f"  flips besides {noise:.0%}, of controls {control:.0%}: {rates}"
            f"  early stop: {early:.3f} (median {median} texts)",
            flush=True,
        )
    print("\n“degraded” for a removal that is like the controls (no margin)", flush=True)
    for law in HARMS:
        rates = "  ".join(
            f"{k} controls: {beyond(law, k, 100 * runs):.4f}" for k in (5, 10, 20, 30)
        )
        print(f"  {law:18}true damages beyond the range  {rates}", flush=True)
        for controls in (10, 20):
            draw = harmless(law, controls)
            rates = "  ".join(
                f"n = {n}: {called('degraded', draw, None, n, runs, margin=0.0):.3f}"
                for n in counts
            )
            early, _ = settled_as("degraded", draw, None, max(1, runs // 4), margin=0.0)
            print(f"  {law:18}{controls:3} controls  {rates}  early stop: {early:.3f}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
