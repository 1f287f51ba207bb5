"""Observing block by block: what was seen is kept, and a settled verdict ends it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from surgeon.errors import EvaluationError
from surgeon.evaluation.evidence import heaviest_text, number_texts
from surgeon.evaluation.observe import Scorer
from surgeon.evaluation.partial import Partial
from surgeon.evaluation.variants import Variant
from surgeon.progress import Progress
from surgeon.scoring.examples import Example
from surgeon.scoring.tasks.task import Floats, as_observed

_BLOCK = 512  # examples that a variant runs at a time,
_BLOCK_TOKENS = 16_384  # if they have no more tokens: a matter of seconds for a small model
_LOOK = 32  # examples between two looks at whether the verdict is settled,
_GROWTH = 1 / 8  # or this share of those that were looked at
_PAUSE = 15.0  # seconds between two savings of what was observed


Look: TypeAlias = Callable[[Sequence[Example], Floats, float], bool]
"""Tells by examples, their observations and the heaviest text's weight if a verdict is settled."""


@dataclass(frozen=True, eq=False)
class Observed:
    """``kept`` is of shape (variants, examples seen, kept); ``resumed`` says how many were there.

    ``settled`` is whether the last look found the verdict settled, and ``heaviest`` the weight of
    the heaviest text, of those that were not seen too.
    """

    kept: Floats
    settled: bool
    resumed: int
    heaviest: float


def observe_in_blocks(
    scorer: Scorer,
    variants: Sequence[Variant],
    examples: Sequence[Example],
    partial: Partial,
    progress: Progress,
    look: Look | None,
    resume: bool,  # noqa: FBT001
) -> Observed:
    """Observe block after block, each in every variant, until the end or the verdict.

    ``variants`` begin with the baseline, the patched model and the controls. ``look`` is how to
    see whether the verdict is settled (None: all examples are observed). ``resume`` goes
    on from what ``partial`` holds: all that was done, a block in some of the variants among it.

    Raises:
        EvaluationError: a model's output is not finite.
        KeyboardInterrupt: what was observed is kept, and the message says so.
    """
    observed = _loaded(partial, len(variants), len(examples)) if resume else None
    resumed = 0 if observed is None else int(_seen(observed).sum())
    saved, settled, block, seen = time.monotonic(), False, slice(0), 0
    heaviest = heaviest_text(examples, number_texts(examples)) if look else 0.0
    try:
        for block in _blocks(examples, look is not None):
            reference: Floats | None = None
            for number, variant in enumerate(variants):
                if observed is not None and _seen(observed)[number, block].all():
                    continue
                done = block.start * len(variants) + number * (block.stop - block.start)
                progress(f"scoring {variant.name}", done, len(examples) * len(variants))
                new = scorer.observe(variant, examples[block])
                if reference is None:
                    anew = number > 0 and scorer.task.against is not as_observed
                    reference = scorer.observe(variants[0], examples[block]) if anew else new
                new = scorer.task.against(new, reference)
                if observed is None:
                    observed = np.full((len(variants), len(examples), new.shape[1]), np.nan)
                if observed.shape[2] != new.shape[1]:
                    raise EvaluationError(f"{partial.path}: damaged; go on without --resume")
                observed[number, block] = new
                if time.monotonic() - saved >= _PAUSE:
                    partial.save(observed[:, : block.stop])
                    saved = time.monotonic()
            assert observed is not None
            if look and block.stop >= seen * (1 + _GROWTH):
                seen = block.stop
                settled = look(examples[:seen], observed[:, :seen], heaviest)
            if settled:
                break
    except KeyboardInterrupt as stopped:
        if observed is None:
            raise KeyboardInterrupt("interrupted before anything was scored") from stopped
        partial.save(observed[:, : block.stop])
        raise KeyboardInterrupt(
            "interrupted; the same call with --resume goes on from here"
        ) from stopped
    assert observed is not None
    return Observed(observed[:, : block.stop], settled, resumed, heaviest)


def _loaded(partial: Partial, variants: int, examples: int) -> Floats | None:
    """Return what was kept, with room for the rest; None where it is of another shape."""
    kept = partial.load()
    if kept is None or kept.ndim != 3 or not kept.size:
        return None
    if kept.shape[0] != variants or kept.shape[1] > examples:
        return None
    return np.pad(kept, ((0, 0), (0, examples - kept.shape[1]), (0, 0)), constant_values=np.nan)


def _blocks(examples: Sequence[Example], until_certain: bool) -> Iterator[slice]:  # noqa: FBT001
    """Yield blocks that depend on the examples alone, so that a resumed run has the same."""
    most, start, tokens = _LOOK if until_certain else _BLOCK, 0, 0
    for number, example in enumerate(examples):
        full = number - start == most or tokens + example.tokens > _BLOCK_TOKENS
        if number > start and full:
            yield slice(start, number)
            start, tokens = number, 0
        tokens += example.tokens
    yield slice(start, len(examples))


def _seen(observed: Floats) -> npt.NDArray[np.bool_]:
    """Return which variants have seen which examples, (variants, examples); the rest is NaN."""
    return np.asarray(~np.isnan(observed).all(axis=2))
