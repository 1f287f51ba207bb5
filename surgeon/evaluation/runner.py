"""An artifact on onnxruntime: one session that runs examples through all its variants."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from surgeon.errors import EvaluationError
from surgeon.evaluation.artifact import Artifact
from surgeon.evaluation.session import Outputs, ProviderName, Session, open_session
from surgeon.onnx.token_scores import LABELS, POSITIONS
from surgeon.tasks.examples import MOST_TOKENS, Example, batch_examples, batches_by_length
from surgeon.tasks.task import BatchScores, Floats, Task, Variant

_TOKENS_PER_CORE = 512  # of a batch: its activations stay in the core's cache, little is padded

_Batch: TypeAlias = tuple[Sequence[int], Outputs]


@dataclass(frozen=True)
class OnnxRunner:
    """Runs examples through the variants of an artifact, for one task.

    ``batch_size`` is how many examples go through at once (None: as many as a budget of tokens
    holds). It changes only the speed.
    """

    artifact: Artifact
    task: Task
    session: Session
    batch_size: int | None = None

    def run(self, variant: Variant, examples: Sequence[Example]) -> Iterator[BatchScores]:
        """Yield the examples batch by batch, and what the task observes of each."""
        for numbers, outputs in self._batches(variant, examples):
            yield numbers, self._scores([examples[number] for number in numbers], outputs)

    def guesses(self, variant: Variant, examples: Sequence[Example]) -> list[npt.NDArray[np.int64]]:
        """Return the likeliest token at each scored position of each example, (scored,)."""
        found: dict[int, npt.NDArray[np.int64]] = {}
        for numbers, (_, guesses) in self._batches(variant, examples):
            parts = _by_example([examples[number] for number in numbers], guesses)
            found.update(zip(numbers, parts, strict=True))
        return [found[number] for number in range(len(examples))]

    def not_finite(self, variant: Variant) -> EvaluationError:
        """Return the error for an output that is not finite: it names the tensor, if one is."""
        named = f"{variant.name} with dims {list(variant.dims)}" if variant.dims else variant.name
        for name, values in self.artifact.tensors(variant).items():
            if count := np.count_nonzero(~np.isfinite(values)):
                return EvaluationError(
                    f"{named}: {name} holds {count} of {values.size} values that are not finite, "
                    "so there is no score to compare; repair the weights and patch again"
                )
        half = self.artifact.facts.dtype == "float16"
        hint = "; float16 ends at 65504: take the model in float32" if half else ""
        return EvaluationError(
            f"{named}: the model's output is not finite, so there is no score to compare{hint}"
        )

    def _batches(self, variant: Variant, examples: Sequence[Example]) -> Iterator[_Batch]:
        """Yield the numbers of the examples of each batch, and what the session gives for it."""
        tensors, session = self.artifact.tensors(variant), self.session
        batches = batches_by_length(
            examples,
            session.width,
            1 if self.artifact.facts.one_at_a_time else self.batch_size,
            tokens=self._most_tokens,
            at_once=session.threads,
        )

        def run(numbers: list[int]) -> _Batch:
            rows = [sequence for number in numbers for sequence in examples[number].sequences]
            parts = [session.run(self._inputs(part), tensors) for part in self._parts(rows)]
            if len(parts) == 1:
                return numbers, parts[0]
            return numbers, tuple(np.concatenate(part) for part in zip(*parts, strict=True))

        pool = ThreadPoolExecutor(session.threads)
        waiting: deque[Future[_Batch]] = deque()
        try:
            for numbers in batches:
                waiting.append(pool.submit(run, numbers))
                if len(waiting) > 2 * session.threads:  # which bounds the outputs in memory
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # of an interruption too: what waits is dropped, what runs ends
            pool.shutdown(cancel_futures=True)

    @property
    def _most_tokens(self) -> int:
        return _TOKENS_PER_CORE if self.session.threads > 1 else MOST_TOKENS

    def _parts(self, rows: Sequence[Example]) -> Iterator[Sequence[Example]]:
        """Split the sequences of a batch where one example has more than go through at once."""
        size = self.batch_size or max(1, self._most_tokens // max(len(row.ids) for row in rows))
        if self.artifact.facts.one_at_a_time:
            size = 1
        if self.task.reduce is None:
            size = len(rows)  # the model's own output may be of another width in each part
        return (rows[start : start + size] for start in range(0, len(rows), size))

    def _inputs(self, rows: Sequence[Example]) -> Mapping[str, npt.NDArray[Any]]:
        facts = self.artifact.facts
        pad = facts.tokenizer.pad_id if facts.tokenizer else 0
        inputs = batch_examples(rows, facts.inputs, pad, facts.padding)
        if self.task.reduce is None:
            return inputs
        positions, labels = zip(*((e.positions, e.labels) for e in rows), strict=True)
        numbers = np.repeat(np.arange(len(rows)), [part.size for part in positions])
        pairs = np.stack([numbers, np.concatenate(positions)], axis=1)
        return {**inputs, POSITIONS: pairs, LABELS: np.concatenate(labels)}

    def _scores(self, examples: Sequence[Example], outputs: Outputs) -> Iterator[Floats]:
        if self.task.reduce is None:
            ends = np.cumsum([len(example.sequences) for example in examples])[:-1]
            split = (np.split(output, ends) for output in outputs)
            for example, *parts in zip(examples, *split, strict=True):
                yield self.task.observe(_stacked(parts), example)
            return
        losses, guesses = (_by_example(examples, output) for output in outputs)
        for example, loss, guess in zip(examples, losses, guesses, strict=True):
            labels = np.concatenate([sequence.labels for sequence in example.sequences])
            hits = (guess == labels).astype(np.float64)
            yield self.task.reduce(loss.astype(np.float64), hits, example)


def open_runner(
    artifact: Artifact,
    task: Task,
    provider: ProviderName = "cpu",
    batch_size: int | None = None,
    *,
    path: Path | None = None,
    replaceable: tuple[str, ...] | None = None,
) -> OnnxRunner:
    """Open an artifact's graph for a task.

    Args:
        artifact: the artifact.
        task: what is scored.
        provider: where to run.
        batch_size: as of ``OnnxRunner``.
        path: another form of the graph (None: its own).
        replaceable: the edited tensors that the form has as they are (None: all).

    Raises:
        EvaluationError: ``batch_size`` is below 1, or as ``open_session`` does.
    """
    if batch_size is not None and batch_size < 1:
        raise EvaluationError(f"`batch_size` {batch_size}: give a number of 1 or more")
    session = open_session(
        path or artifact.model_path,
        artifact.facts.outputs,
        tuple(artifact.baseline) if replaceable is None else replaceable,
        provider,
        per_token=task.reduce is not None,
        width=artifact.tokenizer.get_vocab_size(),
    )
    return OnnxRunner(artifact, task, session, batch_size)


def _stacked(parts: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Return an example's output; several sequences or outputs of it along a leading axis."""
    if len(parts) == 1:
        return parts[0][0] if len(parts[0]) == 1 else parts[0]
    return np.stack(parts, axis=1)


def _by_example(examples: Sequence[Example], flat: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """Split what a batch gave per scored position, (scored in all,), by example."""
    return np.split(flat, np.cumsum([example.scored for example in examples])[:-1])
