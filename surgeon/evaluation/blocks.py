"""A comparison block by block, so that it may stop as soon as it is settled, or go on later."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from surgeon.edit import disk
from surgeon.edit.staging import replace_file
from surgeon.errors import CheckpointError, EvaluationError
from surgeon.model.files import FOLDER
from surgeon.model.tensors import open_safetensors
from surgeon.progress import Progress
from surgeon.tasks.examples import Example
from surgeon.tasks.task import Floats, Runner, Variant, compare_variants

_BLOCK = 512  # examples that a variant runs at a time,
_BLOCK_TOKENS = 16_384  # if they have no more tokens: a matter of seconds for a small model
_LOOK = 32  # examples between two looks at whether the verdict is settled,
_GROWTH = 1 / 8  # or this share of those that were looked at
_OBSERVED = "observed"  # the tensor of what was kept
_PAUSE = 15.0  # seconds between two savings of what was observed


@dataclass(frozen=True, eq=False)
class Compared:
    """``kept`` is of shape (variants, examples seen, kept).

    ``settled`` is whether the verdict was settled before the end, and ``resumed`` whether some of
    it was there already.
    """

    kept: Floats
    settled: bool
    resumed: bool


def compare_in_blocks(
    runner: Runner,
    examples: Sequence[Example],
    variants: Sequence[Variant],
    partial: Partial,
    *,
    is_settled: Callable[[Floats], bool] | None,
    resume: bool,
    progress: Progress,
) -> Compared:
    """Compare block after block, each in every variant, until the end or the verdict.

    Args:
        runner: what runs them.
        examples: the examples.
        variants: the variants, the baseline first.
        partial: where what was observed is kept, should it be interrupted.
        is_settled: is given (variants, examples so far, kept) from time to time, and ends it
            (None: all examples are run).
        resume: go on from what ``partial`` holds: a block in only some of the variants among it.
        progress: called before each block in each variant.

    Raises:
        EvaluationError: a model's output is not finite.
        KeyboardInterrupt: what was observed is kept, and the message says so.
    """
    kept = _loaded(partial, len(variants), len(examples)) if resume else None
    resumed, settled, looked_at = kept is not None, False, 0
    saved, block = time.monotonic(), slice(0)
    try:
        for block in blocks_of(examples, _LOOK if is_settled else _BLOCK):
            left = [n for n in range(len(variants)) if kept is None or _unseen(kept[n, block])]
            observed = compare_variants(runner, examples[block], [variants[n] for n in left])
            for number in left:
                done = block.start * len(variants) + number * (block.stop - block.start)
                name = f"scoring {variants[number].name}"
                progress(name, done, len(examples) * len(variants))
                rows = next(observed)
                if kept is None:
                    kept = np.full((len(variants), len(examples), rows.shape[1]), np.nan)
                if kept.shape[2] != rows.shape[1]:
                    raise EvaluationError(f"{partial.path}: damaged; go on without `resume`")
                kept[number, block] = rows
                if time.monotonic() - saved >= _PAUSE:
                    partial.save(kept[:, : block.stop])
                    saved = time.monotonic()
            assert kept is not None
            if is_settled and block.stop >= looked_at * (1 + _GROWTH):
                looked_at = block.stop
                settled = is_settled(kept[:, :looked_at])
                if settled:
                    break
    except KeyboardInterrupt as stopped:
        if kept is None:
            raise KeyboardInterrupt("interrupted before anything was scored") from stopped
        is_kept = partial.save(kept[:, : block.stop])
        goes_on = "the same call with `resume` goes on from here"
        raise KeyboardInterrupt(
            f"interrupted; {goes_on if is_kept else f'{partial.path} cannot be written'}"
        ) from stopped
    assert kept is not None
    return Compared(kept[:, : block.stop], settled, resumed)


def _unseen(rows: Floats) -> bool:
    """Whether a variant has not seen all of these examples: the others are NaN."""
    return bool(np.isnan(rows).all(axis=1).any())


def _loaded(partial: Partial, variants: int, examples: int) -> Floats | None:
    """Return what was kept, with room for the rest; None where it is of another shape."""
    kept = partial.load()
    if kept is None or kept.ndim != 3 or not kept.size:
        return None
    if kept.shape[0] != variants or kept.shape[1] > examples:
        return None
    return np.pad(kept, ((0, 0), (0, examples - kept.shape[1]), (0, 0)), constant_values=np.nan)


def blocks_of(examples: Sequence[Example], most: int = _BLOCK) -> Iterator[slice]:
    """Yield blocks that depend only on the examples, so that a resumed run has the same."""
    start, tokens = 0, 0
    for number, example in enumerate(examples):
        full = number - start == most or tokens + example.tokens > _BLOCK_TOKENS
        if number > start and full:
            yield slice(start, number)
            start, tokens = number, 0
        tokens += example.tokens
    yield slice(start, len(examples))


@dataclass(frozen=True)
class Partial:
    """The file of one evaluation's observations.

    ``key`` stands for all that they depend on: another artifact, text, task or seed has another.
    """

    path: Path
    key: str

    def load(self) -> Floats | None:
        """Return what was observed, (variants, examples so far, kept); None if there is nothing.

        A variant that had not seen an example has NaN there.
        """
        with contextlib.suppress(CheckpointError):  # none there, or not all that save wrote
            stored = open_safetensors(self.path)
            if stored.metadata == {"key": self.key} and _OBSERVED in stored.tensors:
                observed = stored.read(_OBSERVED)
                return observed if observed.dtype == np.float64 else None
        return None

    def save(self, observed: Floats) -> bool:
        """Keep what was observed so far, whole at every moment; False where the disk takes none."""
        from safetensors.numpy import save

        tensors = {_OBSERVED: np.ascontiguousarray(observed)}
        try:
            replace_file(self.path, save(tensors, {"key": self.key}))
        except OSError:
            return False
        return True

    def remove(self) -> None:
        """Forget it: the evaluation is done."""
        if self.path.is_file():  # a file system that is mounted read-only refuses the call itself
            disk.remove(self.path)


def partial_of(artifact: Path, task: str, settings: Mapping[str, Any]) -> Partial:
    """Name the file for an evaluation with these settings, which are plain JSON values.

    Each task has its own: of several that are scored in turn, the first would else remove it.
    """
    path = artifact / FOLDER / f"eval.partial.{task.replace('/', '-')}.safetensors"
    canonical = json.dumps(settings, sort_keys=True).encode()
    return Partial(path, hashlib.sha256(canonical).hexdigest())
