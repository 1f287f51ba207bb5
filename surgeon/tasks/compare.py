"""Variants of one model on the same examples: what evaluation, sweep and ablation measure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np

from surgeon.errors import SurgeonError
from surgeon.tasks.examples import Example
from surgeon.tasks.task import Floats, Task

BatchScores: TypeAlias = tuple[Sequence[int], Iterable[Floats]]
"""The numbers of a batch's examples, and what the task keeps of each, (kept,)."""


@dataclass(frozen=True)
class Variant:
    """One model of a comparison; ``dims`` are those edited in it, none in the baseline."""

    name: str
    dims: tuple[int, ...]


BASELINE = Variant("baseline", ())


class Runner(Protocol):
    """Runs examples through any variant of one model: on onnxruntime, or in PyTorch."""

    @property
    def task(self) -> Task:
        """What the outputs are scored on."""

    def run(self, variant: Variant, examples: Sequence[Example]) -> Iterator[BatchScores]:
        """Yield the examples batch by batch, in any order."""

    def not_finite(self, variant: Variant) -> SurgeonError:
        """Return the error for a variant whose output is not finite, with the cause if known."""


def compare(
    runner: Runner,
    examples: Sequence[Example],
    variants: Iterable[Variant],
    baseline: Floats | None = None,
) -> Iterator[Floats]:
    """Yield what the task keeps of every example, (examples, kept), for one variant after another.

    Args:
        runner: what runs them.
        examples: the same for every variant.
        variants: what to compare.
        baseline: what ``observe`` gave for these examples in the baseline (None: run it first).

    Raises:
        SurgeonError: a variant's output is not finite.
    """
    reference = observe(runner, BASELINE, examples) if baseline is None else baseline
    for variant in variants:
        observed = observe(runner, variant, examples) if variant.dims else reference
        yield runner.task.against(observed, reference)


def observe(runner: Runner, variant: Variant, examples: Sequence[Example]) -> Floats:
    """Return what the task observes of every example in one variant, (examples, observed).

    Raises:
        SurgeonError: its output is not finite.
    """
    rows: dict[int, Floats] = {}
    with np.errstate(all="ignore"):  # what is not finite is an error below
        for numbers, observed in runner.run(variant, examples):
            rows.update(zip(numbers, observed, strict=True))
    found: Floats = np.stack([rows[number] for number in range(len(examples))])
    if not np.isfinite(found).all():
        raise runner.not_finite(variant)
    return found
