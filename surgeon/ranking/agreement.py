"""All detectors on one checkpoint: whom they put first, and how much of the damage that does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from surgeon.model import Checkpoint
from surgeon.ranking.ablation import ablate_on_bench, check_min_damage
from surgeon.ranking.activations import rank_on_bench
from surgeon.ranking.bench import (
    Bench,
    open_bench,
    open_scale,
)
from surgeon.ranking.detectors import DETECTORS, options_for
from surgeon.ranking.ranking import Measured, Options, Ranking
from surgeon.tasks.statistics import paired_interval
from surgeon.text import (
    Texts,
    built_in_sample,
    ranking_sample,
)

COUNT = 2
_FIRST = 5


@dataclass(frozen=True)
class Standing:
    """A detector beside the others.

    ``first`` are the dimensions that it ranks first, ``outliers`` those that meet its criterion.
    ``damage`` with its paired 95% ``interval`` is what removing its first N together does, and
    ``captured`` the share of the most that any detector's first N do, None if that is nothing.
    """

    method: str
    first: tuple[int, ...]
    outliers: tuple[int, ...]
    damage: float
    interval: tuple[float, float]
    captured: float | None


@dataclass(frozen=True)
class Agreement:
    """The detectors side by side.

    ``count`` is N. ``overlap`` tells for each two methods how many of their first N they share.
    ``attainable`` is the most that any first N do, on ``held_out`` texts, which ranked nothing;
    ``measured`` is how ablation ranked.
    """

    model: str
    architecture: str
    layers: int
    hidden_size: int
    count: int
    standings: tuple[Standing, ...]
    overlap: Mapping[str, Mapping[str, int]]
    attainable: float
    held_out: str
    examples: int
    measured: Measured
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the document that ``scan --compare --json`` prints."""
        return asdict(self)


def compare_detectors(
    checkpoint: Checkpoint, options: Options | None = None, count: int = COUNT
) -> Agreement:
    """Rank by every detector, and measure what removing each one's first ``count`` dims does.

    The built-in sample that evaluates measures what the one that ranks has ranked. Of texts that
    the options name, every other line ranks and the rest measures.

    Raises:
        SurgeonError: what the detectors raise.
    """
    options = options or Options()
    check_min_damage(options.min_damage)
    ranking_texts, held_out = _split(options.texts)
    weights = [
        detector.rank(checkpoint, options_for(detector, options))
        for detector in DETECTORS.values()
        if not detector.needs_model
    ]
    bench = open_bench(checkpoint, ranking_texts, options.progress)
    by_size = rank_on_bench(checkpoint, bench, options.progress)
    ablation = ablate_on_bench(checkpoint, bench, by_size, options)
    rankings = [*weights, by_size, ablation]
    assert ablation.measured is not None
    standings, examples = _stand(rankings, bench.reading(held_out), count, options, ablation)
    firsts = {s.method: set(s.first[:count]) for s in standings}
    return Agreement(
        model=checkpoint.name,
        architecture=checkpoint.family.name,
        layers=ablation.layers,
        hidden_size=checkpoint.hidden_size,
        count=count,
        standings=standings,
        overlap={a: {b: len(firsts[a] & firsts[b]) for b in firsts} for a in firsts},
        attainable=max(standing.damage for standing in standings),
        held_out=held_out.name,
        examples=examples,
        measured=ablation.measured,
        warnings=ablation.warnings,
    )


def _split(texts: Texts | None) -> tuple[Texts, Texts]:
    """Return texts that rank and others that measure."""
    if texts is None:
        return ranking_sample(), built_in_sample()
    ranking = replace(texts, name=f"every other line of {texts.name}", lines=texts.lines[::2])
    return ranking, replace(texts, name=f"the other lines of {texts.name}", lines=texts.lines[1::2])


def _stand(
    rankings: Sequence[Ranking], bench: Bench, count: int, options: Options, ablation: Ranking
) -> tuple[tuple[Standing, ...], int]:
    scale = open_scale(bench, options.seed)
    baseline = scale.observe(())
    before = scale.score(baseline, baseline)
    tops = [tuple(d.dim for d in ranking.dimensions[:count]) for ranking in rankings]
    damages = {}
    different = sorted(set(map(frozenset, tops)), key=sorted)
    for number, dims in enumerate(different):
        options.progress("removing each method's first together", number, len(different))
        after = scale.score(scale.observe(sorted(dims)), baseline)
        interval = paired_interval(after, before)
        damages[dims] = (after.value - before.value, interval)
    best, best_interval = max(damages.values())
    assert ablation.measured is not None
    beyond = best_interval[0] > ablation.measured.control_range[1]
    attainable = best if beyond and best >= ablation.measured.min_damage else None
    standings = []
    for ranking, dims in zip(rankings, map(frozenset, tops), strict=True):
        damage, interval = damages[dims]
        standings.append(
            Standing(
                method=ranking.method,
                first=tuple(d.dim for d in ranking.dimensions[: max(count, _FIRST)]),
                outliers=ranking.outliers,
                damage=damage,
                interval=interval,
                captured=damage / attainable if attainable else None,
            )
        )
    return tuple(standings), len(scale.examples)
