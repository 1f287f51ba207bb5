"""All detectors on one checkpoint: what they rank first, and how much of the damage that does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from surgeon.model import Checkpoint
from surgeon.progress import Progress, silent
from surgeon.ranking.detectors import DETECTORS, MEASURED, rank_weights
from surgeon.ranking.ranking import Measured, Options, Ranking
from surgeon.ranking.removals import AblationRun, start_run
from surgeon.ranking.torch_runner import open_torch_runner
from surgeon.tasks.statistics import Interval, paired_interval
from surgeon.text import GivenTexts, Texts, as_texts, built_in_sample, ranking_sample

COUNT = 2
_FIRST = 5


@dataclass(frozen=True)
class MethodResult:
    """A detector beside the others.

    ``first`` are the dimensions that it ranks first, ``outliers`` those that meet its criterion.
    ``damage`` with its paired 95% ``interval`` is what removing its first N together does, and
    ``captured`` the share of the most that any detector's first N do, None if that is nothing.
    """

    method: str
    first: tuple[int, ...]
    outliers: tuple[int, ...]
    damage: float
    interval: Interval
    captured: float | None


@dataclass(frozen=True)
class Agreement:
    """The detectors side by side.

    ``count`` is N. ``overlap`` has for each two methods how many of their first N they share.
    ``attainable`` is the most that any first N do, on ``held_out`` texts, which ranked nothing;
    ``measured`` is how ablation ranked.
    """

    model: str
    architecture: str
    layers: int
    hidden_size: int
    count: int
    standings: tuple[MethodResult, ...]
    overlap: Mapping[str, Mapping[str, int]]
    attainable: float
    held_out: str
    examples: int
    measured: Measured
    warnings: tuple[str, ...]

    def __repr__(self) -> str:
        first = ", ".join(f"{one.method} {list(one.first[: self.count])}" for one in self.standings)
        return f"<Agreement on {self.model}: {first}>"

    def to_json(self) -> dict[str, Any]:
        """Return the document that ``scan --compare --json`` prints."""
        return asdict(self)


def compare_detectors(
    checkpoint: Checkpoint,
    options: Options | None = None,
    count: int = COUNT,
    *,
    progress: Progress = silent,
) -> Agreement:
    """Rank by every detector, and measure what removing each one's first ``count`` dims does.

    The built-in sample that evaluates measures what the one that ranks has ranked. Of texts that
    the options name, every other line ranks and the rest measures. ``progress`` is called at each
    step.

    Raises:
        SurgeonError: what the detectors raise.
    """
    options = options or Options()
    ranking_texts, held_out = _split(options.texts)
    on_weights = [d for d in DETECTORS.values() if not d.needs_model]
    on_text = [d for d in DETECTORS.values() if d.needs_model]
    rankings = [rank_weights(detector, checkpoint, options) for detector in on_weights]
    runner = open_torch_runner(checkpoint, ranking_texts, progress, options.device)
    rankings += [detector.rank(runner, options, progress) for detector in on_text]
    ablation = next(ranking for ranking in rankings if ranking.method == MEASURED)
    assert ablation.measured is not None
    judging = start_run(runner.with_texts(held_out), options)
    results = _remove_firsts(rankings, ablation.measured, judging, count, progress)
    firsts = {result.method: set(result.first[:count]) for result in results}
    return Agreement(
        model=checkpoint.name,
        architecture=checkpoint.family.name,
        layers=ablation.layers,
        hidden_size=checkpoint.hidden_size,
        count=count,
        standings=results,
        overlap={a: {b: len(firsts[a] & firsts[b]) for b in firsts} for a in firsts},
        attainable=max(result.damage for result in results),
        held_out=held_out.name,
        examples=len(judging.examples),
        measured=ablation.measured,
        warnings=ablation.warnings,
    )


def _split(given: GivenTexts | None) -> tuple[Texts, Texts]:
    """Return texts that rank and others that measure."""
    if given is None:
        return ranking_sample(), built_in_sample()
    texts = as_texts(given)
    ranking = replace(texts, name=f"every other line of {texts.name}", lines=texts.lines[::2])
    return ranking, replace(texts, name=f"the other lines of {texts.name}", lines=texts.lines[1::2])


def _remove_firsts(
    rankings: Sequence[Ranking],
    measured: Measured,
    run: AblationRun,
    count: int,
    progress: Progress,
) -> tuple[MethodResult, ...]:
    """Remove each method's first dims together."""
    before = run.scores(())
    tops = [frozenset(d.dim for d in ranking.dimensions[:count]) for ranking in rankings]
    damages = {}
    different = sorted(set(tops), key=sorted)
    for number, dims in enumerate(different):
        progress("removing each method's first together", number, len(different))
        after = run.scores(sorted(dims))
        damages[dims] = (after.value - before.value, paired_interval(after, before))
    best, best_interval = max(damages.values())
    chance = measured.control_range
    beyond_chance = chance and best_interval[0] > chance[1] and best >= measured.min_damage
    return tuple(
        MethodResult(
            method=ranking.method,
            first=tuple(d.dim for d in ranking.dimensions[: max(count, _FIRST)]),
            outliers=ranking.outliers,
            damage=damages[dims][0],
            interval=damages[dims][1],
            captured=damages[dims][0] / best if beyond_chance else None,
        )
        for ranking, dims in zip(rankings, tops, strict=True)
    )
