"""A model's task with dimensions removed in memory: what was observed of each removal."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from surgeon.ranking.race import Removal
from surgeon.ranking.ranking import Options
from surgeon.ranking.torch_runner import TorchRunner
from surgeon.tasks.examples import Example
from surgeon.tasks.task import Floats, Scores, Settings, Variant, observe

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
_CONTROLS = 8  # random removals that say what one dimension does by chance


@dataclass(frozen=True, eq=False)
class AblationRun:
    """A model with its examples in random order, and what was observed of each removal so far."""

    runner: TorchRunner
    settings: Settings
    examples: Sequence[Example]
    options: Options
    seen: dict[Removal, Floats] = field(default_factory=dict)

    @property
    def min_damage(self) -> float:
        """The least damage that counts."""
        asked = self.options.min_damage
        return MIN_DAMAGE[self.runner.task.name] if asked is None else float(asked)

    @property
    def removals(self) -> int:
        """How many different removals ran."""
        return sum(1 for dims in self.seen if dims)

    @property
    def passes(self) -> float:
        """How often the model read a text, in units of all texts."""
        return sum(map(len, self.seen.values())) / len(self.examples)

    def scores(self, dims: Sequence[int], texts: int | None = None) -> Scores:
        """Score the model without dimensions, on the first texts (None: all)."""
        texts, task = texts or len(self.examples), self.runner.task
        whole, without = (self._observed(tuple(removal), texts) for removal in ((), dims))
        return task.scores(task.against(without, whole), self.settings)[task.metric]

    def _observed(self, dims: Removal, texts: int) -> Floats:
        """Return what is observed of the first texts; what ran before does not run again."""
        before = self.seen.get(dims)
        done = 0 if before is None else len(before)
        if done < texts:
            rows = observe(self.runner, Variant("ablated", dims), self.examples[done:texts])
            self.seen[dims] = rows if before is None else np.concatenate([before, rows])
        return self.seen[dims][:texts]

    def draw_controls(self, candidates: Collection[int], size: int = 1) -> list[Removal]:
        """Draw random removals of so many dimensions, none of them a candidate if possible."""
        hidden = self.runner.checkpoint.hidden_size
        rest = np.setdiff1d(np.arange(hidden), list(candidates))
        rng = np.random.default_rng([self.options.seed, hidden])
        # In a model of very few dimensions all may be candidates; then any of them is a control.
        pool = rest if rest.size >= size else np.arange(hidden)
        count = min(_CONTROLS, pool.size // size)
        drawn = rng.choice(pool, size=(count, size), replace=False)
        return sorted(tuple(map(int, dims)) for dims in drawn)


def start_run(runner: TorchRunner, options: Options) -> AblationRun:
    """Make the examples of the texts, in random order.

    Raises:
        SurgeonError: the texts have nothing to score.
    """
    runner, settings = runner.shuffled(options.seed), runner.settings(options.seed)
    return AblationRun(runner, settings, runner.examples(settings), options)
