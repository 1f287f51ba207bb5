"""What a dimension does: removed, the damage to the model's own task (Kovaleva et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from surgeon.checkpoint import Checkpoint
from surgeon.errors import SelectionError
from surgeon.outliers.activations import rank_on_bench
from surgeon.outliers.bench import Bench, Scale, open_bench, open_scale
from surgeon.outliers.layernorm import rank_by_layernorm
from surgeon.outliers.layernorm_count import rank_by_count
from surgeon.outliers.options import Options
from surgeon.outliers.ranking import Dimension, Measured, Ranking
from surgeon.progress import Progress
from surgeon.scoring.statistics import control_range, paired_interval
from surgeon.scoring.tasks import Scores
from surgeon.scoring.tasks.task import Floats
from surgeon.text import ranking_sample

CONTROLS = 8
"""Random removals that say what one dimension does by chance."""

_FROM_WEIGHTS = 3  # candidates of each criterion on the weights
_FROM_ACTIVATIONS = 7
_LATER = 12  # candidates of the rounds after the first
_FINALISTS = 2  # of a later round, measured on all texts
_SCREEN = 4  # every fourth text is looked at first
_WORTH_A_LOOK = 0.25  # of the least damage: from there on, all texts are looked at
_MOST_CHOSEN = 8


@dataclass(frozen=True)
class Damage:
    """What a removal did on some examples: the change of the metric, with its 95% interval."""

    value: float
    interval: tuple[float, float]
    examples: int


def rank_by_ablation(checkpoint: Checkpoint, options: Options) -> Ranking:
    """Rank dimensions by the damage that their removal does to the model's own task.

    The task is the masked or the causal loss where the checkpoint has a head, else the drift of
    sentence embeddings. A dimension is removed by zeroing its gain and bias (of a dense layer, its
    slice and bias) at the output sites of all layers, in memory.

    Candidates are the strongest by ``layernorm``, ``layernorm-count`` and ``activations``
    together, each removed alone, on every fourth text first and on all if it does a quarter of
    ``min_damage`` there. ``exhaustive`` removes every dimension alone, on all texts.

    A damage meets the criterion if it is at least ``min_damage`` and its whole paired 95% interval
    lies beyond the range of random removals (``statistics.control_range``). Outliers are the
    dimensions whose removal alone meets it, chosen one after another: each time the one that adds
    most to those chosen before. After them come dimensions that meet it only beside those chosen
    before, if there are any: two that stand in for each other do nothing alone.

    ``score`` is 1 or more for the outliers, first come first, 0 for other candidates and −1
    for what was not measured; ``strength`` is the damage alone, or the score by activations.

    Raises:
        ExportError: the model does not load or run in PyTorch.
        EvaluationError: it has no tokenizer, or the texts have nothing to score.
        SelectionError: ``min_damage`` is negative or not a number.
    """
    check_min_damage(options.min_damage)
    texts = options.texts or ranking_sample()
    with open_bench(checkpoint, texts, options.progress) as bench:
        by_size = rank_on_bench(checkpoint, bench, options.progress)
        return ablate_on_bench(checkpoint, bench, by_size, options)


def ablate_on_bench(
    checkpoint: Checkpoint, bench: Bench, by_size: Ranking, options: Options
) -> Ranking:
    """Rank by ablation with a model that is loaded, and ranked by activations, already."""
    shortlisted = shortlist(by_size, [rank_by_layernorm(checkpoint), rank_by_count(checkpoint)])
    scale = open_scale(bench, options.seed)
    trial = _Trial(scale, scale.observe(()), options)
    hidden = checkpoint.hidden_size
    # The same for a shortlist and for all, so that both are held against the same range.
    controls = _draw(hidden, shortlisted, options.seed)
    random_range = control_range(
        [
            trial.damage((), dim, numbers=trial.some).value
            for dim in _counted(controls, "random removals", options)
        ]
    )
    candidates = range(hidden) if options.exhaustive else shortlisted
    alone = {
        dim: trial.damage((), dim) if options.exhaustive else trial.damage_alone(dim)
        for dim in _counted(candidates, "removing each alone", options)
    }
    added = _choose(trial, alone, random_range)
    measured = Measured(
        task=scale.task.name,
        metric=scale.task.metric,
        unit=scale.task.unit,
        texts=bench.texts.name,
        sha256=bench.texts.sha256,
        examples=len(scale.examples),
        baseline=trial.scores(()).value,
        control_range=random_range,
        min_damage=options.min_damage,
    )
    dimensions = _in_order(by_size, alone, added)
    return Ranking(
        model=checkpoint.name,
        architecture=checkpoint.family.name,
        layers=len(bench.sites),
        hidden_size=hidden,
        method="ablation",
        evidence=f"{scale.task.metric} on {len(scale.examples)} texts of {bench.texts.name}, "
        f"{len(alone)} of {hidden} dimensions removed alone",
        criterion=f"a damage of {options.min_damage:g} or more, its 95% interval beyond the "
        f"{random_range[0]:.3g} to {random_range[1]:.3g} of random removals",
        dimensions=dimensions,
        outliers=tuple(added),
        columns=("", ""),
        text=bench.texts.used(),
        measured=measured,
        warnings=bench.warnings,
    )


def check_min_damage(min_damage: float) -> None:
    """Refuse a least damage that is none."""
    if not (math.isfinite(min_damage) and min_damage >= 0):
        raise SelectionError(f"--min-damage {min_damage:g}: give a number of 0 or more")


def shortlist(by_size: Ranking, from_weights: Iterable[Ranking]) -> tuple[int, ...]:
    """Return the dimensions that the cheap rankings put first, each once."""
    firsts = [d.dim for d in by_size.dimensions[:_FROM_ACTIVATIONS]]
    for ranking in from_weights:
        firsts += [d.dim for d in ranking.dimensions[:_FROM_WEIGHTS]]
    return tuple(dict.fromkeys(firsts))


@dataclass(frozen=True, eq=False)
class _Trial:
    """The scale and what it shows for the model as it is."""

    scale: Scale
    baseline: Floats
    options: Options

    @property
    def some(self) -> tuple[int, ...]:
        """The examples that are looked at first; two, if there are no more."""
        every = range(len(self.scale.examples))
        return tuple(every[::_SCREEN]) if len(every) >= 2 * _SCREEN else tuple(every)

    def scores(self, dims: Sequence[int], numbers: Sequence[int] | None = None) -> Scores:
        baseline = self.baseline if numbers is None else self.baseline[list(numbers)]
        observed = self.scale.observe(dims, numbers) if dims else baseline
        return self.scale.score(observed, baseline)

    def damage(
        self,
        given: Sequence[int],
        dim: int,
        before: Scores | None = None,
        numbers: Sequence[int] | None = None,
    ) -> Damage:
        """Measure what removing ``dim`` adds to what is ``given``, scored ``before``."""
        before = before or self.scores(given, numbers)
        after = self.scores((*given, dim), numbers)
        interval = paired_interval(after, before, self.options.seed)
        return Damage(after.value - before.value, interval, after.total.size)

    def damage_alone(self, dim: int) -> Damage:
        """Measure on some texts what removing ``dim`` does, and on all if it may be much."""
        first = self.damage((), dim, numbers=self.some)
        promising = first.interval[1] >= _WORTH_A_LOOK * self.options.min_damage
        whole = first.examples == len(self.scale.examples)
        return self.damage((), dim) if promising and not whole else first

    def meets(self, damage: Damage, random_range: tuple[float, float]) -> bool:
        """Whether a damage makes an outlier."""
        return damage.value >= self.options.min_damage and damage.interval[0] > random_range[1]


def _choose(
    trial: _Trial, alone: dict[int, Damage], random_range: tuple[float, float]
) -> dict[int, Damage]:
    """Choose outliers one after another; return what each added, in the order chosen."""
    by_damage = sorted(alone, key=lambda dim: -alone[dim].value)
    strong = [dim for dim in by_damage if trial.meets(alone[dim], random_range)]
    chosen = {dim: alone[dim] for dim in strong[:1]}
    while chosen and len(chosen) < _MOST_CHOSEN:
        waiting = [dim for dim in strong if dim not in chosen]
        rest = waiting or [dim for dim in by_damage if dim not in chosen]
        added = _measure_added(trial, tuple(chosen), rest[:_LATER])
        best = max(added, key=lambda dim: added[dim].value, default=None)
        if best is None or not (waiting or trial.meets(added[best], random_range)):
            break
        chosen[best] = added[best]
    return chosen


def _measure_added(trial: _Trial, given: tuple[int, ...], rest: Sequence[int]) -> dict[int, Damage]:
    """Measure what the most promising of the rest add: all on some texts, a few on all texts."""
    step = f"removing another beside {', '.join(map(str, given))}"
    finalists = list(rest)
    if len(rest) > _FINALISTS:
        screened = {
            dim: trial.scores((*given, dim), trial.some).value
            for dim in _counted(rest, step, trial.options)
        }
        finalists = sorted(screened, key=lambda dim: -screened[dim])[:_FINALISTS]
    before = trial.scores(given)
    return {
        dim: trial.damage(given, dim, before) for dim in _counted(finalists, step, trial.options)
    }


def _in_order(
    by_size: Ranking, alone: dict[int, Damage], added: dict[int, Damage]
) -> tuple[Dimension, ...]:
    place = {dim: float(len(added) - number) for number, dim in enumerate(added)}
    found = []
    for seen in by_size.dimensions:
        damage, more = alone.get(seen.dim), added.get(seen.dim)
        found.append(
            Dimension(
                dim=seen.dim,
                score=place.get(seen.dim, 0.0 if damage else -1.0),
                strength=damage.value if damage else seen.score,
                layers=seen.layers,
                flags=seen.flags,
                damage=damage.value if damage else None,
                interval=damage.interval if damage else None,
                examples=damage.examples if damage else None,
                added=more.value if more else None,
                added_interval=more.interval if more else None,
            )
        )
    return tuple(sorted(found, key=lambda d: (-d.score, -d.strength, d.dim)))


def _draw(hidden: int, without: Collection[int], seed: int) -> list[int]:
    rest = np.setdiff1d(np.arange(hidden), list(without))
    rng = np.random.default_rng([seed, hidden])
    return sorted(map(int, rng.choice(rest, size=min(CONTROLS, rest.size), replace=False)))


def _counted(dims: Collection[int], step: str, options: Options) -> Iterable[int]:
    progress: Progress = options.progress
    for number, dim in enumerate(dims):
        progress(step, number, len(dims))
        yield dim
