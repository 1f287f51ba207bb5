"""Observing block by block: what was seen is kept, and a settled verdict ends it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from surgeon.evaluation.observe import Scorer, observe_all
from surgeon.evaluation.partial import Partial
from surgeon.evaluation.variants import Variant
from surgeon.evaluation.verdict import is_settled
from surgeon.progress import Progress
from surgeon.scoring.examples import Example
from surgeon.scoring.statistics import confidence_sequence, control_range
from surgeon.scoring.tasks import Task
from surgeon.scoring.tasks.task import Floats

_BLOCK = 512  # examples between two savings of what was observed
_LOOK = 32  # examples between two looks at whether the verdict is settled


def observe_in_blocks(
    scorer: Scorer,
    variants: Sequence[Variant],
    examples: Sequence[Example],
    partial: Partial,
    progress: Progress,
    controls: int,
    until_certain: bool,  # noqa: FBT001
    resume: bool,  # noqa: FBT001
) -> Floats:
    """Observe block after block, until the end or the verdict; (variants, examples, kept).

    ``variants`` begin with the baseline, the patched model and the ``controls``. ``resume`` goes
    on from what ``partial`` holds.
    """
    observed = partial.load() if resume else None
    step = _LOOK if until_certain else _BLOCK
    start = 0 if observed is None else observed.shape[1]
    for first in range(start, len(examples), step):
        block = examples[first : first + step]
        new = observe_all(scorer, variants, block, progress, first, len(examples))
        observed = new if observed is None else np.concatenate([observed, new], axis=1)
        if until_certain and _settled(scorer.task, observed, controls):
            break
        if observed.shape[1] < len(examples):
            partial.save(observed)
    assert observed is not None
    return observed


def _settled(task: Task, observed: Floats, controls: int) -> bool:
    scores = [task.score(kept, observed[0])[task.metric] for kept in observed[: 2 + controls]]
    damages = [control.value - scores[0].value for control in scores[2:]]
    return is_settled(confidence_sequence(scores[1], scores[0]), control_range(damages))
