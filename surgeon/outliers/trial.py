"""Removals weighed on a scale: what one does, how sure that is, and what a random one does."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from surgeon.outliers.bench import Scale
from surgeon.outliers.options import MIN_DAMAGE, Options
from surgeon.scoring.statistics import control_range, paired_interval
from surgeon.scoring.tasks import Scores
from surgeon.scoring.tasks.task import Floats

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
