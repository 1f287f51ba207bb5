"""Examples × variants → observations: what a task keeps of every example's output."""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from surgeon.edit import disk
from surgeon.edit.source_files import PARTIAL_EVALUATION
from surgeon.edit.staging import replace_file
from surgeon.errors import EvaluationError
from surgeon.evaluation.artifact import Artifact, Variant, tensors_of
from surgeon.evaluation.session import Session
from surgeon.evaluation.verdict import heaviest_text, number_texts
from surgeon.onnx.token_scores import LABELS, POSITIONS
from surgeon.progress import Progress
from surgeon.tasks.examples import (
    MOST_TOKENS,
    Example,
    batch_examples,
    batches_by_length,
)
from surgeon.tasks.registry import Task
from surgeon.tasks.task import Floats, as_observed

_T = TypeVar("_T")
_R = TypeVar("_R")

_TOKENS_OF_A_CORE = 512  # of a batch: its activations stay in the core's cache, little is padded


@dataclass(frozen=True)
class Scorer:
    """All that turns examples into observations, for any variant of one artifact.

    ``batch_size`` is how many examples go through at once (None: as many as a budget of tokens
    holds). It changes the speed alone.
    """

    artifact: Artifact
    task: Task
    session: Session
    batch_size: int | None = None

    def observe(self, variant: Variant, examples: Sequence[Example]) -> Floats:
        """Run examples through a variant; returns (examples, kept), in their order.

        Raises:
            EvaluationError: the model's output is not finite.
        """
        kept: list[Floats | None] = [None] * len(examples)
        for numbers, outputs in self._run(variant, examples):
            chosen = [examples[number] for number in numbers]
            with np.errstate(all="ignore"):  # what is not finite is told below
                for number, row in zip(numbers, self._reduced(chosen, outputs), strict=True):
                    kept[number] = row
        observed: Floats = np.stack([row for row in kept if row is not None])
        if not np.isfinite(observed).all():
            raise EvaluationError(self._why_not_finite(variant))
        return observed

    def _why_not_finite(self, variant: Variant) -> str:
        named = f"{variant.name} with dims {list(variant.dims)}" if variant.dims else variant.name
        for name, values in tensors_of(self.artifact, variant).items():
            if count := values.size - int(np.isfinite(values).sum()):
                return (
                    f"{named}: {name} holds {count} of {values.size} values that are not finite, "
                    "so there is no score to compare; repair the weights and patch again"
                )
        return f"{named}: the model's output is not finite, so there is no score to compare"

    def guesses(self, variant: Variant, examples: Sequence[Example]) -> list[npt.NDArray[np.int64]]:
        """Return the likeliest token at each scored position of each example, (scored,)."""
        found: list[npt.NDArray[np.int64]] = [np.empty(0, dtype=np.int64)] * len(examples)
        for numbers, (_, guesses) in self._run(variant, examples):
            for number, part in zip(numbers, _by_example(examples, numbers, guesses), strict=True):
                found[number] = part
        return found

    def _run(
        self, variant: Variant, examples: Sequence[Example]
    ) -> Iterator[tuple[list[int], tuple[npt.NDArray[Any], ...]]]:
        """Yield the numbers of the examples of each batch, and what the session gives for it."""
        tensors, session = tensors_of(self.artifact, variant), self.session
        batches = batches_by_length(
            examples,
            session.width,
            1 if self.artifact.facts.one_at_a_time else self.batch_size,
            tokens=self._tokens,
            at_once=session.threads,
        )

        def run(numbers: list[int]) -> tuple[list[int], tuple[npt.NDArray[Any], ...]]:
            rows = [sequence for number in numbers for sequence in examples[number].sequences]
            parts = [session.run(self._batch(part), tensors) for part in self._parts(rows)]
            if len(parts) == 1:
                return numbers, parts[0]
            return numbers, tuple(np.concatenate(part) for part in zip(*parts, strict=True))

        pool = ThreadPoolExecutor(session.threads)
        try:
            yield from _in_order(pool, run, batches, 2 * session.threads)
        finally:  # of an interruption too: what waits is dropped, what runs ends
            pool.shutdown(cancel_futures=True)

    @property
    def _tokens(self) -> int:
        """The tokens of a batch."""
        return _TOKENS_OF_A_CORE if self.session.threads > 1 else MOST_TOKENS

    def _parts(self, rows: Sequence[Example]) -> Iterator[Sequence[Example]]:
        """Split the sequences of a batch where one example has more than go through at once."""
        size = self.batch_size or max(1, self._tokens // max(len(row.ids) for row in rows))
        if self.artifact.facts.one_at_a_time:
            size = 1
        if not self.session.per_token:
            size = len(rows)  # the model's own output may be of another width in each part
        return (rows[start : start + size] for start in range(0, len(rows), size))

    def _batch(self, rows: Sequence[Example]) -> Mapping[str, Any]:
        facts = self.artifact.facts
        pad = facts.tokenizer.pad_id if facts.tokenizer else 0
        batch = batch_examples(rows, facts.inputs, pad, facts.padding)
        return {**batch, **_scored(rows)} if self.session.per_token else batch

    def _reduced(
        self, examples: Sequence[Example], outputs: tuple[npt.NDArray[Any], ...]
    ) -> Iterator[Floats]:
        if self.task.reduce is None:
            row = 0
            for example in examples:
                count = len(example.sequences)
                yield self.task.observe(_of_rows(outputs, row, count), example)
                row += count
            return
        everyone = range(len(examples))
        losses, guesses = (_by_example(examples, everyone, output) for output in outputs)
        for loss, guess, example in zip(losses, guesses, examples, strict=True):
            labels = np.concatenate([sequence.labels for sequence in example.sequences])
            hits = (guess == labels).astype(np.float64)
            yield self.task.reduce(loss.astype(np.float64), hits, example)


def _in_order(
    pool: ThreadPoolExecutor, step: Callable[[_T], _R], items: Iterable[_T], ahead: int
) -> Iterator[_R]:
    """Yield what a step makes of each item, in their order, at most some items ahead."""
    waiting: deque[Future[_R]] = deque()
    for item in items:
        waiting.append(pool.submit(step, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _of_rows(outputs: tuple[npt.NDArray[Any], ...], row: int, count: int) -> npt.NDArray[Any]:
    """Return the output of one example's rows; several rows or outputs along a leading axis."""
    if len(outputs) == 1:
        return outputs[0][row] if count == 1 else outputs[0][row : row + count]
    return np.stack([output[row : row + count] for output in outputs], axis=1)


def _scored(examples: Sequence[Example]) -> dict[str, npt.NDArray[np.int64]]:
    """Return the positions and labels of a batch as the extended graph takes them."""
    pairs = [
        np.stack([np.full_like(example.positions, row), example.positions], axis=1)
        for row, example in enumerate(examples)
    ]
    labels = [example.labels for example in examples]
    return {POSITIONS: np.concatenate(pairs), LABELS: np.concatenate(labels)}


def _by_example(
    examples: Sequence[Example], numbers: Sequence[int], flat: npt.NDArray[Any]
) -> list[npt.NDArray[Any]]:
    """Split what a batch gave per scored position, (scored in all,), by example."""
    counts = [examples[number].scored for number in numbers]
    return np.split(flat, np.cumsum(counts)[:-1])


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
        if not self.path.is_file():
            return None
        raw = self.path.read_bytes()
        try:
            with np.load(io.BytesIO(raw), allow_pickle=False) as stored:
                if sum(entry.file_size for entry in stored.zip.infolist()) > len(raw):
                    return None  # compressed, which save does not do
                observed: Floats = stored["observed"]
                same = str(stored["key"]) == self.key and observed.dtype == np.float64
        except Exception:  # noqa: BLE001  (numpy's, zip's and Python's own, as the damage is)
            # Not a file that save wrote, or not all of it: begin anew.
            return None
        return observed if same else None

    def save(self, observed: Floats) -> None:
        """Keep what was observed so far, whole at every moment."""
        buffer = io.BytesIO()
        np.savez(buffer, key=np.array(self.key), observed=observed)
        replace_file(self.path, buffer.getvalue())

    def remove(self) -> None:
        """Forget it: the evaluation is done."""
        disk.remove(self.path)


def partial_of(artifact: Path, settings: Mapping[str, Any]) -> Partial:
    """Name the file for an evaluation with these settings, which are plain JSON values."""
    canonical = json.dumps(settings, sort_keys=True).encode()
    return Partial(artifact / PARTIAL_EVALUATION, hashlib.sha256(canonical).hexdigest())
