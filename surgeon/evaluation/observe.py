"""Examples × variants → observations: what a task keeps of every example's output."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from surgeon.errors import EvaluationError
from surgeon.evaluation.artifact import Artifact
from surgeon.evaluation.session import Session
from surgeon.evaluation.variants import Variant, tensors_of
from surgeon.onnx_model.token_scores import LABELS, POSITIONS
from surgeon.scoring.examples import (
    MOST_TOKENS,
    Example,
    batch_examples,
    batches_by_length,
)
from surgeon.scoring.tasks import Task
from surgeon.scoring.tasks.task import Floats

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
