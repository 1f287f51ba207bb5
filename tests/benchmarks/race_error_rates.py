"""How often a race of removals names a wrong dimension: simulated damages, by surgeon's own rule.

    python tests/benchmarks/race_error_rates.py [races]

Wrong is a race that names a dimension whose true damage is below the least that counts or no more
than that of random removals, or that leaves no doubt about its first two where another one truly
does more. ``runs`` is what a race takes, in runs of one text through one removal.
"""

import sys

import numpy as np

from surgeon.ranking.race import ERROR, block_ends, damage_of, run_race
from surgeon.tasks.task import Scores

TEXTS, CANDIDATES, CONTROLS, WANTED = 120, 14, 8, 2
LEAST = 0.05

# Damage per text of a removal whose true damage is 1: (texts,).
LAWS = {
    "normal": lambda r, n: r.normal(1, 1, n),
    "exponential": lambda r, n: r.exponential(1, n),
    "Student t, 2.5 degrees": lambda r, n: 1 + r.standard_t(2.5, n),
    "lognormal, σ = 1": lambda r, n: r.lognormal(-0.5, 1, n),
    "lognormal, σ = 1.5": lambda r, n: r.lognormal(-1.125, 1.5, n),
    "Pareto, 2.5": lambda r, n: r.pareto(2.5, n) * 1.5,
    "Pareto, 1.5": lambda r, n: r.pareto(1.5, n) * 0.5,
    "on 30% of the texts": lambda r, n: (r.random(n) < 0.3) * r.exponential(1 / 0.3, n),
    "on 10% of the texts": lambda r, n: (r.random(n) < 0.1) * r.exponential(10, n),
}
# The true damages of the candidates; those of random removals are the last one's.
FIELDS = {
    "all null": np.full(CANDIDATES, 0.01),
    "one": np.array([0.5, *[0.01] * (CANDIDATES - 1)]),
    "two and one nearly": np.array([0.4, 0.1, 0.06, *[0.01] * (CANDIDATES - 3)]),
    "ties": np.array([0.3, 0.3, 0.3, *[0.01] * (CANDIDATES - 3)]),
    "at the least": np.array([LEAST * 0.9] * 3 + [0.01] * (CANDIDATES - 3)),
    "a slope": 0.5 * 0.7 ** np.arange(CANDIDATES),
}


def race(field, draw, rng, least=LEAST, noise=0.02):
    """Race simulated removals; return whether it was wrong, what it named, and the runs."""
    means = np.append(field, [field[-1]] * CONTROLS)
    damages = np.stack([mean * draw(rng, TEXTS) for mean in means])
    damages += rng.normal(0, noise, damages.shape)
    seen = {}
    zeros, ones = np.zeros(TEXTS), np.ones(TEXTS)

    def measure(removal, texts):
        (dim,) = removal
        seen[dim] = max(texts, seen.get(dim, 0))
        after, before = (
            Scores(damages[dim, :texts], ones[:texts]),
            Scores(zeros[:texts], ones[:texts]),
        )
        return damage_of(after, before, ERROR / len(means))

    removals = [(dim,) for dim in range(len(means))]
    candidates, controls = removals[: len(field)], removals[len(field) :]
    blocks = tuple(block_ends(TEXTS))
    found = run_race(candidates, controls, measure, blocks, wanted=WANTED, least=least)
    worst = min((field[dim] for (dim,) in found.named), default=np.inf)
    others = [dim for (dim,) in candidates if (dim,) not in found.named + found.undecided]
    better = len(found.named) == WANTED and any(field[others] > worst)
    return worst < max(least, field[-1] * 1.001) or better, found, sum(seen.values())


def rates(law, field, races, least=LEAST, seed=0):
    """Return the share of wrong races, of those that named two, and the median runs."""
    rng = np.random.default_rng(seed)
    wrong, named, runs = zip(
        *(
            (wrong, len(found.named), runs)
            for wrong, found, runs in (
                race(FIELDS[field], LAWS[law], rng, least) for _ in range(races)
            )
        ),
        strict=True,
    )
    return np.mean(wrong), np.mean(named), np.median(runs)


def main(races):
    """Print the tables."""
    for least in (LEAST, 0.0):
        print(f"\nRaces that are wrong, of {races}, at a least damage of {least:g}", flush=True)
        for field in FIELDS:
            for law in LAWS:
                wrong, named, runs = rates(law, field, races, least)
                print(
                    f"  {field:20}{law:24}{wrong:6.1%}  named {named:.2f}  runs {runs:.0f}",
                    flush=True,
                )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
