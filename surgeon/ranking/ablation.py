"""What a dimension does: removed, the damage to the model's own task (Kovaleva et al. 2021)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from surgeon.harmless import from_to
from surgeon.progress import Progress
from surgeon.ranking.activations import rank_by_activations
from surgeon.ranking.gradient import rank_by_effect
from surgeon.ranking.layernorm import rank_by_count, rank_by_layernorm
from surgeon.ranking.race import (
    ERROR,
    FIRST_BLOCK,
    Damage,
    Race,
    Removal,
    block_ends,
    damage_of,
    find_most,
    run_race,
)
from surgeon.ranking.ranking import Dimension, Measured, Options, Ranking
from surgeon.ranking.removals import AblationRun, start_run
from surgeon.ranking.torch_runner import TorchRunner
from surgeon.tasks.statistics import FEW_TEXTS
from surgeon.tasks.task import Scores

_FROM_WEIGHTS = 2  # candidates of each criterion on the weights
_FROM_TEXT = 5  # of the activations, and of the gradients
_SPARE = 2  # that meet the criterion alone, beyond those asked for: some may add little
_FINALISTS = 2  # of those that do not, after a first look at what each adds
_JOINT = 2  # times what two do on their own, for an effect of both together
_ADDED = 16  # texts on which to measure what one adds
_MOST_CHOSEN = 8


def rank_by_ablation(runner: TorchRunner, options: Options, progress: Progress) -> Ranking:
    """Rank dimensions by the damage that their removal does to the model's own task.

    The task is the loss of the language-model head (masked, causal, replaced or permuted tokens,
    text infilling), else the drift of sentence embeddings: of a model without a head, and of one
    whose head takes labels. A dimension is removed by zeroing its gain and bias (of a dense layer,
    its slice and bias) at the output sites of all layers, in memory.

    Candidates are the strongest by ``layernorm`` and ``layernorm-count``, and by ``activations``
    and ``gradient`` on the first few texts, in random order. They race, each removed alone:
    whatever more texts can no longer make an outlier is dropped, until the ``count`` that are
    asked for are told from the rest (``race.run_race``). ``exhaustive`` races every dimension.

    A damage meets the criterion if it is at least ``min_damage`` (``MIN_DAMAGE``) and its whole
    interval lies beyond the range of random removals (``statistics.control_range``). The intervals
    of all candidates and rounds hold at once, in 95 of 100 cases, whenever each of them was last
    looked at. Outliers are the dimensions whose removal alone meets it, chosen one after another:
    each time the one that adds most to those chosen before. After them come dimensions that meet
    it only beside those chosen before, and two that meet it only together: such as stand in for
    each other do nothing alone.

    ``score`` is 1 or more for the outliers, first come first, 0 for other candidates and −1
    for what was not measured; ``strength`` is the damage alone, or the score by activations.

    Raises:
        ExportError: the model does not run in PyTorch.
        CheckpointError: a tensor holds values that are not finite.
        EvaluationError: the texts have nothing to score.
    """
    checkpoint = runner.checkpoint
    run = start_run(runner, options)
    by_size = rank_by_activations(run.runner.of_first(FIRST_BLOCK), options, progress)
    first_texts = run.examples[:FIRST_BLOCK]
    by_effect = rank_by_effect(run.runner, first_texts, options.seed, progress)
    by_weights = rank_by_layernorm(checkpoint), rank_by_count(checkpoint)
    firsts = [d.dim for ranking in (by_size, by_effect) for d in ranking.dimensions[:_FROM_TEXT]]
    firsts += [d.dim for ranking in by_weights for d in ranking.dimensions[:_FROM_WEIGHTS]]
    candidates = tuple(dict.fromkeys(firsts))
    tried = range(checkpoint.hidden_size) if options.exhaustive else candidates
    # The same controls for a shortlist and for all dimensions, so that the range is the same.
    controls = run.draw_controls(candidates)
    choice = _Choice(run, controls, options.count or _MOST_CHOSEN, progress)
    first = choice.race_alone([(dim,) for dim in tried])
    added = choice.choose(first)
    texts, task, baseline = runner.texts, runner.task, run.scores(()).value
    beyond, chance = "which no candidate did, so that no random removal ran", None
    if first.control_range:
        # No loss and no drift is below zero, so that no removal can lower one by more than it is.
        chance = max(first.control_range[0], 0.0 - baseline), first.control_range[1]
        beyond = f"its interval beyond the {from_to(chance, '.3g')} of random removals"
    left_out = f"; {runner.left_out}" if runner.left_out else ""
    most = max(damage.texts for damage in first.damages.values())
    return Ranking(
        model=checkpoint.name,
        architecture=checkpoint.family.name,
        layers=len(runner.layers),
        hidden_size=checkpoint.hidden_size,
        method="ablation",
        evidence=f"{task.metric} on at most {most} of {len(run.examples)} texts of {texts.name}, "
        f"{len(tried)} of {checkpoint.hidden_size} dimensions removed alone{left_out}",
        criterion=f"a damage of {run.min_damage:g} or more, {beyond}: alone, beside those chosen "
        "before, or two together",
        dimensions=_in_order(by_size, run, first, added),
        outliers=tuple(added),
        columns=("", ""),
        text=texts.used(),
        measured=Measured(
            task=task.name,
            metric=task.metric,
            unit=task.unit,
            texts=texts.name,
            sha256=texts.sha256,
            examples=most,
            baseline=baseline,
            control_range=chance if chance and np.isfinite(chance).all() else None,
            min_damage=run.min_damage,
            error=ERROR,
            removals=run.removals,
            passes=run.passes,
        ),
        warnings=(*runner.warnings, *_undecided(first, added, len(run.examples))),
        by_layer=by_size.by_layer,
    )


@dataclass(frozen=True, eq=False)
class _Choice:
    """The rounds that choose ``count`` outliers; each has half of the error that is left."""

    run: AblationRun
    controls: list[Removal]
    count: int
    progress: Progress
    rounds: list[float] = field(default_factory=lambda: [ERROR])

    def race_alone(self, candidates: Sequence[Removal]) -> Race:
        """Race removals alone; some more are told apart than are asked for, to choose among."""
        return self._race(candidates, (), self.controls, self.count + _SPARE)

    def choose(self, alone: Race) -> dict[int, Damage]:
        """Choose outliers one after another; return what each added, in the order chosen."""
        waiting = list(alone.named)
        chosen = {dim: alone.damages[dim,] for (dim,) in waiting[:1]}
        while len(chosen) < self.count:
            given = tuple(chosen)
            waiting = [removal for removal in waiting if removal[0] not in chosen]
            rest = [removal for removal in alone.damages if removal[0] not in chosen]
            if waiting:
                found = self._most(waiting, given)
            else:
                found = self._one_beside(given, rest) or self._two_together(given, rest)
            if not found:
                break
            chosen.update(found)
        return chosen

    def _most(self, waiting: Sequence[Removal], given: Removal) -> dict[int, Damage]:
        """Choose the one of several outliers that adds most."""

        def scores(removal: Removal, texts: int) -> Scores:
            return self.run.scores((*given, *removal), texts)

        best = find_most(waiting, scores, self._blocks, self._next_error())
        return {best[0]: self._measure(best, given, self._next_error(), _ADDED)}

    def _one_beside(self, given: Removal, rest: Sequence[Removal]) -> dict[int, Damage]:
        """Choose one that meets the criterion beside those chosen, by a first look at the rest."""
        if not given or not rest:
            return {}
        first_look = {r: self.run.scores((*given, *r), self._blocks[0]).value for r in rest}
        finalists = sorted(rest, key=lambda removal: -first_look[removal])[:_FINALISTS]
        race = self._race(finalists, given, self.controls)
        return {removal[0]: race.damages[removal] for removal in race.named}

    def _two_together(self, given: Removal, rest: Sequence[Removal]) -> dict[int, Damage]:
        """Choose two that meet the criterion together, and do far more than each on its own.

        They are those without which the removal of all the rest does least.
        """
        if self.count - len(given) < 2 or len(rest) < 3:
            return {}
        dims, first_look = [dim for (dim,) in rest], self._blocks[0]

        def total(removed: Sequence[int], texts: int = first_look) -> float:
            before = self.run.scores(given, texts).value
            return self.run.scores((*given, *removed), texts).value - before

        def are_joint(pair: Removal, texts: int = first_look) -> bool:
            return total(pair, texts) >= _JOINT * sum(total([dim], texts) for dim in pair)

        if total(dims) < self.run.min_damage:
            return {}
        without = {dim: total([other for other in dims if other != dim]) for dim in dims}
        pair = tuple(sorted(dims, key=lambda dim: without[dim])[:2])
        if not are_joint(pair):
            return {}
        race = self._race([pair], given, self.run.draw_controls([*given, *dims], 2))
        if not race.named or not are_joint(pair, race.damages[pair].texts):
            return {}
        first, second = pair
        error = self._next_error() / 2
        return {
            first: self._measure((first,), given, error, _ADDED),
            second: self._measure((second,), (*given, first), error, _ADDED),
        }

    @property
    def _blocks(self) -> tuple[int, ...]:
        return tuple(block_ends(len(self.run.examples)))

    def _next_error(self) -> float:
        self.rounds.append(self.rounds[-1] / 2)
        return self.rounds[-1]

    def _race(
        self,
        candidates: Sequence[Removal],
        given: Removal,
        controls: Sequence[Removal],
        wanted: int = 1,
    ) -> Race:
        error = self._next_error() / (len(candidates) + len(controls))
        beside = f" beside {len(given)}" if given else ""
        measured = Counter[int]()  # on so many texts

        def measure(removal: Removal, texts: int) -> Damage:
            # All race on the first texts, and fewer on more.
            step, most = f"removing dimensions{beside}, {texts} texts", len(candidates)
            self.progress(step, min(measured[texts], most), most)
            measured[texts] += 1
            return self._measure(removal, given, error, texts)

        return run_race(
            candidates, controls, measure, self._blocks, wanted=wanted, least=self.run.min_damage
        )

    def _measure(self, removal: Removal, given: Removal, error: float, texts: int) -> Damage:
        texts = min(texts, len(self.run.examples))
        before, after = (self.run.scores(dims, texts) for dims in (given, (*given, *removal)))
        return damage_of(after, before, error)


def _undecided(first: Race, added: Mapping[int, Damage], texts: int) -> tuple[str, ...]:
    """Say if the texts are few, and which candidates all of them could not tell from the rest."""
    few = (f"there are {texts} distinct texts, and more are firmer: give more data",)
    open_ones = [str(dim) for (dim,) in first.undecided if dim not in added]
    which = ", ".join(open_ones)
    left = (f"{texts} texts do not settle whether {which} would be an outlier; more texts may",)
    return (*(few if texts < FEW_TEXTS else ()), *(left if open_ones else ()))


def _in_order(
    by_size: Ranking, run: AblationRun, alone: Race, added: Mapping[int, Damage]
) -> tuple[Dimension, ...]:
    place = {dim: float(len(added) - number) for number, dim in enumerate(added)}
    found = []
    for seen in by_size.dimensions:
        damage, more = alone.damages.get((seen.dim,)), added.get(seen.dim)
        found.append(
            replace(
                seen,
                score=place.get(seen.dim, 0.0 if damage else -1.0),
                strength=damage.value if damage else seen.score,
                damage=damage.value if damage else None,
                interval=_finite(damage),
                examples=damage.texts if damage else None,
                added=more.value if more else None,
                added_interval=_finite(more),
                removals=sum(seen.dim in dims for dims in run.seen),
            )
        )
    return tuple(sorted(found, key=lambda d: (-d.score, -d.strength, d.dim)))


def _finite(damage: Damage | None) -> tuple[float, float] | None:
    """Return an interval that has ends."""
    return damage.interval if damage and np.isfinite(damage.interval).all() else None
