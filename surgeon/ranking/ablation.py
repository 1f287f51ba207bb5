"""What a dimension does: removed, the damage to the model's own task (Kovaleva et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from surgeon.errors import SelectionError
from surgeon.model import Checkpoint
from surgeon.ranking.activations import rank_on_bench
from surgeon.ranking.bench import (
    Bench,
    Scale,
    open_bench,
    open_scale,
)
from surgeon.ranking.layernorm import rank_by_count, rank_by_layernorm
from surgeon.ranking.ranking import (
    MIN_DAMAGE,
    Dimension,
    Measured,
    Options,
    Ranking,
)
from surgeon.tasks.registry import Scores
from surgeon.tasks.statistics import control_range, paired_interval
from surgeon.tasks.task import Floats
from surgeon.text import ranking_sample

_FROM_WEIGHTS = 3  # candidates of each criterion on the weights
_FROM_ACTIVATIONS = 7
_LATER = 12  # candidates of the rounds after the first
_FINALISTS = 2  # of a later round, measured on all texts
_MOST_CHOSEN = 8


def rank_by_ablation(checkpoint: Checkpoint, options: Options) -> Ranking:
    """Rank dimensions by the damage that their removal does to the model's own task.

    The task is the loss of the language-model head (masked, causal, replaced or permuted tokens,
    text infilling), else the drift of sentence embeddings: of a model without a head, and of one
    whose head takes labels. A dimension is removed by zeroing its gain and bias (of a dense layer,
    its slice and bias) at the output sites of all layers, in memory.

    Candidates are the strongest by ``layernorm``, ``layernorm-count`` and ``activations``
    together, each removed alone, on every fourth text first and on all if it does a quarter of
    ``min_damage`` there. ``exhaustive`` removes every dimension alone, on all texts.

    A damage meets the criterion if it is at least ``min_damage`` (``options.MIN_DAMAGE``) and its
    whole paired 95% interval lies beyond the range of random removals
    (``statistics.control_range``). Outliers are the dimensions whose removal alone meets it,
    chosen one after another: each time the one that adds most to those chosen before. After them
    come dimensions that meet it only beside those chosen before, if there are any: two that stand
    in for each other do nothing alone.

    ``score`` is 1 or more for the outliers, first come first, 0 for other candidates and −1
    for what was not measured; ``strength`` is the damage alone, or the score by activations.

    Raises:
        ExportError: the model does not load or run in PyTorch.
        CheckpointError: a tensor holds values that are not finite.
        EvaluationError: it has no tokenizer, or the texts have nothing to score.
        SelectionError: ``min_damage`` is negative or not a number.
    """
    check_min_damage(options.min_damage)
    texts = options.texts or ranking_sample()
    bench = open_bench(checkpoint, texts, options.progress)
    by_size = rank_on_bench(checkpoint, bench, options.progress)
    return ablate_on_bench(checkpoint, bench, by_size, options)


def ablate_on_bench(
    checkpoint: Checkpoint, bench: Bench, by_size: Ranking, options: Options
) -> Ranking:
    """Rank by ablation with a model that is loaded, and ranked by activations, already."""
    shortlisted = shortlist(by_size, [rank_by_layernorm(checkpoint), rank_by_count(checkpoint)])
    scale = open_scale(bench, options.seed)
    hidden = checkpoint.hidden_size
    # The same for a shortlist and for all, so that both are held against the same range.
    trial = open_trial(scale, shortlisted, options)
    baseline = trial.scores(()).value
    low, high = trial.random_range(())
    # No loss and no drift is below zero, so that no removal can lower one by more than it is.
    random_range = max(low, 0.0 - baseline), high
    candidates = range(hidden) if options.exhaustive else shortlisted
    alone = {
        dim: trial.damage((), dim) if options.exhaustive else trial.damage_alone(dim)
        for dim in counted(candidates, "removing each alone", options)
    }
    added = _choose(trial, alone, random_range)
    measured = Measured(
        task=scale.task.name,
        metric=scale.task.metric,
        unit=scale.task.unit,
        texts=bench.texts.name,
        sha256=bench.texts.sha256,
        examples=len(scale.examples),
        baseline=baseline,
        control_range=random_range,
        min_damage=trial.min_damage,
    )
    dimensions = _in_order(by_size, alone, added)
    return Ranking(
        model=checkpoint.name,
        architecture=checkpoint.family.name,
        layers=len(bench.layers),
        hidden_size=hidden,
        method="ablation",
        evidence=f"{scale.task.metric} on {len(scale.examples)} texts of {bench.texts.name}, "
        f"{len(alone)} of {hidden} dimensions removed alone"
        + (f"; {bench.left_out}" if bench.left_out else ""),
        criterion=f"a damage of {trial.min_damage:g} or more, its 95% interval beyond the "
        f"{random_range[0]:.3g} to {random_range[1]:.3g} of random removals: alone, or beside "
        "those chosen before",
        dimensions=dimensions,
        outliers=tuple(added),
        columns=("", ""),
        text=bench.texts.used(),
        measured=measured,
        warnings=bench.warnings,
        by_layer=by_size.by_layer,
    )


def check_min_damage(min_damage: float | None) -> None:
    """Refuse a least damage that is none."""
    if min_damage is not None and not (math.isfinite(min_damage) and min_damage >= 0):
        raise SelectionError(f"--min-damage {min_damage:g}: give a number of 0 or more")


def shortlist(by_size: Ranking, from_weights: Iterable[Ranking]) -> tuple[int, ...]:
    """Return the dimensions that the cheap rankings put first, each once."""
    firsts = [d.dim for d in by_size.dimensions[:_FROM_ACTIVATIONS]]
    for ranking in from_weights:
        firsts += [d.dim for d in ranking.dimensions[:_FROM_WEIGHTS]]
    return tuple(dict.fromkeys(firsts))


def _choose(
    trial: Trial, alone: dict[int, Damage], random_range: tuple[float, float]
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
        if best is None:
            break
        if not waiting and not _meets_beside(trial, tuple(chosen), added[best], random_range):
            break
        chosen[best] = added[best]
    return chosen


def _meets_beside(
    trial: Trial, given: tuple[int, ...], added: Damage, random_range: tuple[float, float]
) -> bool:
    """Whether what is added beside others is beyond chance; in a broken model, little is."""
    return trial.meets(added, random_range) and trial.meets(added, trial.random_range(given))


def _measure_added(trial: Trial, given: tuple[int, ...], rest: Sequence[int]) -> dict[int, Damage]:
    """Measure what the most promising of the rest add: all on some texts, a few on all texts."""
    step = f"removing another beside {', '.join(map(str, given))}"
    finalists = list(rest)
    if len(rest) > _FINALISTS:
        screened = {
            dim: trial.scores((*given, dim), trial.some).value
            for dim in counted(rest, step, trial.options)
        }
        finalists = sorted(screened, key=lambda dim: -screened[dim])[:_FINALISTS]
    before = trial.scores(given)
    return {
        dim: trial.damage(given, dim, before) for dim in counted(finalists, step, trial.options)
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


CONTROLS = 8
"""Random removals that say what one dimension does by chance."""

_SCREEN = 4  # every fourth text is looked at first
_WORTH_A_LOOK = 0.25  # of the least damage: from there on, all texts are looked at


@dataclass(frozen=True)
class Damage:
    """What a removal did on some examples: the change of the metric, with its 95% interval."""

    value: float
    interval: tuple[float, float]
    examples: int


@dataclass(frozen=True, eq=False)
class Trial:
    """The scale, what it shows for the model as it is, and the dimensions of the controls."""

    scale: Scale
    baseline: Floats
    controls: Sequence[int]
    options: Options

    @property
    def min_damage(self) -> float:
        """The least damage that counts."""
        asked = self.options.min_damage
        return MIN_DAMAGE[self.scale.task.name] if asked is None else asked

    @property
    def some(self) -> tuple[int, ...]:
        """The examples that are looked at first; two, if there are no more."""
        every = range(len(self.scale.examples))
        return tuple(every[::_SCREEN]) if len(every) >= 2 * _SCREEN else tuple(every)

    def scores(self, dims: Sequence[int], numbers: Sequence[int] | None = None) -> Scores:
        """Score the model without dimensions, on all examples or those of the numbers."""
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
        interval = paired_interval(after, before)
        return Damage(after.value - before.value, interval, after.total.size)

    def damage_alone(self, dim: int) -> Damage:
        """Measure on some texts what removing ``dim`` does, and on all if it may be much."""
        first = self.damage((), dim, numbers=self.some)
        promising = first.interval[1] >= _WORTH_A_LOOK * self.min_damage
        whole = first.examples == len(self.scale.examples)
        return self.damage((), dim) if promising and not whole else first

    def random_range(self, given: Sequence[int]) -> tuple[float, float]:
        """Measure where the removal of a random dimension beside those given lies."""
        beside = f" beside {', '.join(map(str, given))}" if given else ""
        before = self.scores(given, self.some)
        damages = [
            self.damage(given, dim, before, self.some).value
            for dim in counted(self.controls, f"random removals{beside}", self.options)
        ]
        return control_range(damages)

    def meets(self, damage: Damage, random_range: tuple[float, float]) -> bool:
        """Whether a damage makes an outlier."""
        return damage.value >= self.min_damage and damage.interval[0] > random_range[1]


def open_trial(scale: Scale, shortlisted: Collection[int], options: Options) -> Trial:
    """Measure the model as it is, and draw the controls: none of them is shortlisted."""
    hidden = scale.bench.loaded.checkpoint.hidden_size
    rest = np.setdiff1d(np.arange(hidden), list(shortlisted))
    rng = np.random.default_rng([options.seed, hidden])
    # In a model of very few dimensions all may be shortlisted; then any of them is a control.
    pool = rest if rest.size else np.arange(hidden)
    drawn = rng.choice(pool, size=min(CONTROLS, pool.size), replace=False)
    return Trial(scale, scale.observe(()), sorted(map(int, drawn)), options)


def counted(dims: Collection[int], step: str, options: Options) -> Iterator[int]:
    """Yield dimensions and report the progress of a step over them."""
    for number, dim in enumerate(dims):
        options.progress(step, number, len(dims))
        yield dim
