"""What a dimension does: removed, the damage to the model's own task (Kovaleva et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from surgeon.errors import SelectionError
from surgeon.model import Checkpoint
from surgeon.ranking.activations import rank_by_size
from surgeon.ranking.layernorm import rank_by_count, rank_by_layernorm
from surgeon.ranking.ranking import Detector, Dimension, Measured, Options, Ranking
from surgeon.ranking.torch_runner import TorchRunner, open_torch_runner
from surgeon.tasks.compare import BASELINE, Variant, compare, observe
from surgeon.tasks.examples import Example
from surgeon.tasks.statistics import Interval, control_range, paired_interval
from surgeon.tasks.task import Floats, Scores, Settings
from surgeon.text import ranking_sample

MIN_DAMAGE: Mapping[str, float] = {
    **dict.fromkeys(("mlm", "clm", "rtd", "plm", "denoising"), 0.1),
    "drift": 0.05,
}
"""The least damage that makes an outlier, by task.

Enough text tells any removal from chance; it takes more to be worth a name. 0.1 nats are a tenth of
the perplexity. The weakest dimension that Kovaleva et al. 2021 call an outlier, 381 of BERT-base,
does 0.15 by their figure; the strongest of two models that have none do 0.01 on text in the form
that they were trained on, and 0.07 (IgLM-S) on text that opens with a token of another form. For
the losses of ELECTRA, XLNet and BART the same is a convention: no figure is known. A drift of
0.05 is a cosine of 0.95.
"""
CONTROLS = 8
"""Random removals that say what one dimension does by chance."""

_FROM_WEIGHTS = 3  # candidates of each criterion on the weights
_FROM_ACTIVATIONS = 7
_LATER = 12  # candidates of the rounds after the first
_FINALISTS = 2  # of a later round, measured on all texts
_MOST_CHOSEN = 8
_SCREEN = 4  # every fourth text is looked at first
_WORTH_A_LOOK = 0.25  # of the least damage: from there on, all texts are looked at


def rank_by_ablation(checkpoint: Checkpoint, options: Options) -> Ranking:
    """Rank dimensions by the damage that their removal does to the model's own task.

    The task is the loss of the language-model head (masked, causal, replaced or permuted tokens,
    text infilling), else the drift of sentence embeddings: of a model without a head, and of one
    whose head takes labels. A dimension is removed by zeroing its gain and bias (of a dense layer,
    its slice and bias) at the output sites of all layers, in memory.

    Candidates are the strongest by ``layernorm``, ``layernorm-count`` and ``activations``
    together, each removed alone, on every fourth text first and on all if it does a quarter of
    ``min_damage`` there. ``exhaustive`` removes every dimension alone, on all texts.

    A damage meets the criterion if it is at least ``min_damage`` (``MIN_DAMAGE``) and its whole
    paired 95% interval lies beyond the range of random removals (``statistics.control_range``).
    Outliers are the dimensions whose removal alone meets it, chosen one after another: each time
    the one that adds most to those chosen before. After them come dimensions that meet it only
    beside those chosen before, if there are any: two that stand in for each other do nothing
    alone.

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
    runner = open_torch_runner(checkpoint, texts, options.progress)
    return ablate(runner, rank_by_size(runner, options.progress), options)


def ablate(runner: TorchRunner, by_size: Ranking, options: Options) -> Ranking:
    """Rank by ablation with a model that is loaded, and ranked by activations, already."""
    checkpoint = runner.checkpoint
    candidates = shortlist(by_size, rank_by_layernorm(checkpoint), rank_by_count(checkpoint))
    # The same controls for a shortlist and for all dimensions, so that the range is the same.
    run = start_run(runner, options, candidates)
    baseline = run.scores(()).value
    low, high = run.random_range(())
    # No loss and no drift is below zero, so that no removal can lower one by more than it is.
    random_range = max(low, 0.0 - baseline), high
    tried = range(checkpoint.hidden_size) if options.exhaustive else candidates
    alone = {
        dim: run.damage((), dim) if options.exhaustive else run.damage_alone(dim)
        for dim in run.counted(tried, "removing each alone")
    }
    added = _choose(run, alone, random_range)
    texts, task, min_damage = runner.texts, runner.task, run.min_damage
    left_out = f"; {runner.left_out}" if runner.left_out else ""
    return Ranking(
        model=checkpoint.name,
        architecture=checkpoint.family.name,
        layers=len(runner.layers),
        hidden_size=checkpoint.hidden_size,
        method=ABLATION.name,
        evidence=f"{task.metric} on {len(run.examples)} texts of {texts.name}, "
        f"{len(alone)} of {checkpoint.hidden_size} dimensions removed alone{left_out}",
        criterion=f"a damage of {min_damage:g} or more, its 95% interval beyond the "
        f"{random_range[0]:.3g} to {random_range[1]:.3g} of random removals: alone, or beside "
        "those chosen before",
        dimensions=_in_order(by_size, alone, added),
        outliers=tuple(added),
        columns=("", ""),
        text=texts.used(),
        measured=Measured(
            task=task.name,
            metric=task.metric,
            unit=task.unit,
            texts=texts.name,
            sha256=texts.sha256,
            examples=len(run.examples),
            baseline=baseline,
            control_range=random_range,
            min_damage=min_damage,
        ),
        warnings=runner.warnings,
        by_layer=by_size.by_layer,
    )


def check_min_damage(min_damage: float | None) -> None:
    """Refuse a least damage that is negative or not a number.

    Raises:
        SelectionError: it is.
    """
    if min_damage is not None and not (math.isfinite(min_damage) and min_damage >= 0):
        raise SelectionError(f"`min_damage` {min_damage:g}: give a number of 0 or more")


def shortlist(by_size: Ranking, *from_weights: Ranking) -> tuple[int, ...]:
    """Return the dimensions that the cheap rankings put first, each once."""
    firsts = [d.dim for d in by_size.dimensions[:_FROM_ACTIVATIONS]]
    for ranking in from_weights:
        firsts += [d.dim for d in ranking.dimensions[:_FROM_WEIGHTS]]
    return tuple(dict.fromkeys(firsts))


@dataclass(frozen=True)
class Damage:
    """What a removal did on some examples: the change of the metric, with its 95% interval."""

    value: float
    interval: Interval
    examples: int


@dataclass(frozen=True, eq=False)
class AblationRun:
    """A model with its examples, what is observed of it whole, and the random dimensions."""

    runner: TorchRunner
    settings: Settings
    examples: Sequence[Example]
    baseline: Floats
    controls: Sequence[int]
    options: Options

    @property
    def min_damage(self) -> float:
        """The least damage that counts."""
        asked = self.options.min_damage
        return MIN_DAMAGE[self.runner.task.name] if asked is None else asked

    @cached_property
    def screening(self) -> AblationRun:
        """The same on the examples that are looked at first, or on all if they are few."""
        if len(self.examples) < 2 * _SCREEN:
            return self
        some = slice(None, None, _SCREEN)
        return replace(self, examples=self.examples[some], baseline=self.baseline[some])

    def scores(self, dims: Sequence[int]) -> Scores:
        """Score the model without dimensions."""
        task, variant = self.runner.task, Variant("ablated", tuple(dims))
        (kept,) = compare(self.runner, self.examples, [variant], self.baseline)
        return task.scores(kept, self.settings)[task.metric]

    def damage(self, given: Sequence[int], dim: int, before: Scores | None = None) -> Damage:
        """Measure what removing ``dim`` adds to what is ``given``, scored ``before``."""
        before = before or self.scores(given)
        after = self.scores((*given, dim))
        interval = paired_interval(after, before)
        return Damage(after.value - before.value, interval, after.total.size)

    def damage_alone(self, dim: int) -> Damage:
        """Measure on some texts what removing ``dim`` does, and on all if it may be much."""
        first = self.screening.damage((), dim)
        promising = first.interval[1] >= _WORTH_A_LOOK * self.min_damage
        return self.damage((), dim) if promising and self.screening is not self else first

    def random_range(self, given: Sequence[int]) -> Interval:
        """Measure where the removal of a random dimension beside those given lies."""
        beside = f" beside {', '.join(map(str, given))}" if given else ""
        before = self.screening.scores(given)
        damages = [
            self.screening.damage(given, dim, before).value
            for dim in self.counted(self.controls, f"random removals{beside}")
        ]
        return control_range(damages)

    def meets(self, damage: Damage, random_range: Interval) -> bool:
        """Whether a damage makes an outlier."""
        return damage.value >= self.min_damage and damage.interval[0] > random_range[1]

    def counted(self, dims: Collection[int], step: str) -> Iterator[int]:
        """Yield dimensions and report the progress of a step over them."""
        for number, dim in enumerate(dims):
            self.options.progress(step, number, len(dims))
            yield dim


def start_run(
    runner: TorchRunner, options: Options, shortlisted: Collection[int] = ()
) -> AblationRun:
    """Observe the whole model, and draw the controls: none of them is shortlisted.

    Raises:
        SurgeonError: the texts have nothing to score, or the output is not finite.
    """
    hidden = runner.checkpoint.hidden_size
    rest = np.setdiff1d(np.arange(hidden), list(shortlisted))
    rng = np.random.default_rng([options.seed, hidden])
    # In a model of very few dimensions all may be shortlisted; then any of them is a control.
    pool = rest if rest.size else np.arange(hidden)
    drawn = rng.choice(pool, size=min(CONTROLS, pool.size), replace=False)
    settings = runner.settings(options.seed)
    examples = runner.examples(settings)
    baseline = observe(runner, BASELINE, examples)
    return AblationRun(runner, settings, examples, baseline, sorted(map(int, drawn)), options)


def _choose(
    run: AblationRun, alone: dict[int, Damage], random_range: Interval
) -> dict[int, Damage]:
    """Choose outliers one after another; return what each added, in the order chosen."""
    by_damage = sorted(alone, key=lambda dim: -alone[dim].value)
    strong = [dim for dim in by_damage if run.meets(alone[dim], random_range)]
    chosen = {dim: alone[dim] for dim in strong[:1]}
    while chosen and len(chosen) < _MOST_CHOSEN:
        given = tuple(chosen)
        waiting = [dim for dim in strong if dim not in chosen]
        rest = waiting or [dim for dim in by_damage if dim not in chosen]
        added = _measure_added(run, given, rest[:_LATER])
        if not added:
            break
        best = max(added, key=lambda dim: added[dim].value)
        # Beside others an effect must be beyond chance there too: in a broken model, little is.
        if not waiting and not (
            run.meets(added[best], random_range) and run.meets(added[best], run.random_range(given))
        ):
            break
        chosen[best] = added[best]
    return chosen


def _measure_added(
    run: AblationRun, given: tuple[int, ...], rest: Sequence[int]
) -> dict[int, Damage]:
    """Measure what the most promising of the rest add: all on some texts, a few on all texts."""
    step = f"removing another beside {', '.join(map(str, given))}"
    finalists = rest
    if len(rest) > _FINALISTS:
        screened = {
            dim: run.screening.scores((*given, dim)).value for dim in run.counted(rest, step)
        }
        finalists = sorted(screened, key=lambda dim: -screened[dim])[:_FINALISTS]
    before = run.scores(given)
    return {dim: run.damage(given, dim, before) for dim in run.counted(finalists, step)}


def _in_order(
    by_size: Ranking, alone: dict[int, Damage], added: dict[int, Damage]
) -> tuple[Dimension, ...]:
    place = {dim: float(len(added) - number) for number, dim in enumerate(added)}
    found = []
    for seen in by_size.dimensions:
        damage, more = alone.get(seen.dim), added.get(seen.dim)
        found.append(
            replace(
                seen,
                score=place.get(seen.dim, 0.0 if damage else -1.0),
                strength=damage.value if damage else seen.score,
                damage=damage.value if damage else None,
                interval=damage.interval if damage else None,
                examples=damage.examples if damage else None,
                added=more.value if more else None,
                added_interval=more.interval if more else None,
            )
        )
    return tuple(sorted(found, key=lambda d: (-d.score, -d.strength, d.dim)))


ABLATION = Detector(
    "ablation",
    rank_by_ablation,
    needs_model=True,
    summary="the damage that removing it does to the model's own task",
    source="Kovaleva et al. 2021, arXiv 2105.06990",
    takes=("texts", "min_damage", "exhaustive"),
)
