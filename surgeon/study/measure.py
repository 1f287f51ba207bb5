"""A cell on its model → what the row of results says of it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from blake3 import blake3

from surgeon._version import __version__
from surgeon.edit.changes import with_slices
from surgeon.edit.expectation import EvaluationSettings, expected_verdict
from surgeon.edit.plan import Plan, make_plan
from surgeon.edit.recipe import Recipe
from surgeon.edit.selection import draw_dims
from surgeon.edit.transfer import hash_file
from surgeon.edit.write import write_artifact
from surgeon.errors import EvaluationError, SurgeonError
from surgeon.evaluation.artifact import BASELINE, Artifact, Variant, draw_controls, open_artifact
from surgeon.evaluation.observe import Scorer
from surgeon.evaluation.request import Workload, prepare
from surgeon.evaluation.session import (
    ProviderName,
    Session,
    open_session,
)
from surgeon.evaluation.verdict import (
    Effect,
    Evidence,
    effect_of,
    margin_of,
    number_texts,
    weigh,
    why_unskilled,
)
from surgeon.model import Checkpoint, open_checkpoint
from surgeon.model.artifact import RECORD
from surgeon.progress import silent
from surgeon.study.cells import CONTROLS, Cell
from surgeon.study.grid import Model
from surgeon.study.jobs import Row, describe
from surgeon.tasks.registry import Scores
from surgeon.tasks.statistics import (
    chance_of_rank,
    is_firm,
    paired_interval,
)
from surgeon.tasks.task import Floats

_DRAWS = 20  # for each control that is wanted, before controls of the cell's own are drawn


def measure(bench: Bench, cell: Cell) -> dict[str, Any]:
    """Measure a cell and return its part of the row, as plain JSON values.

    The patched model, the baseline and the interval are those of ``evaluate`` on the artifact of
    the cell's recipe. The controls are random removals too, but drawn so that cells share them.

    Raises:
        SurgeonError: the recipe does not fit the model, or the evaluation is not possible.
    """
    plan = make_plan(bench.checkpoint, cell.recipe)
    settings = cell.evaluation
    prepared, observed = bench.baseline(settings)
    edited = _edited(bench.artifact, plan)
    task, examples = prepared.task, prepared.examples
    base = _score(prepared, observed, observed)
    patched = _observe(bench, prepared, edited, plan.dims, observed)
    wanted = CONTROLS if settings.controls is None else settings.controls
    drawn = _draw_controls(edited, wanted, settings.seed or 0)
    controls = {dims: _control(bench, prepared, edited, dims, settings, observed) for dims in drawn}
    texts = number_texts(examples)
    within = functools.partial(paired_interval, texts=texts)
    finding = weigh(
        effect_of(patched, base, within),
        list(controls.values()),
        margin_of(task, examples, observed, prepared.settings),
        Evidence(
            examples=len(examples),
            distinct=int(texts.max()) + 1,
            unskilled=why_unskilled(task, examples, observed, prepared.settings, within),
            firm=is_firm(patched, base, texts),
            unchanged=plan.parameters_changed == 0,
        ),
    )
    delta, interval, span = finding.patched.damage, finding.patched.interval, finding.control_range
    scorer = bench.scorer(prepared, edited)
    return {
        "dims": list(plan.dims),
        "task": task.name,
        "metric": task.metric,
        "examples": prepared.dataset.examples,
        "tokens": prepared.dataset.tokens,
        "baseline": base.value,
        "patched": patched.value,
        "delta": delta,
        "ci95_low": interval[0],
        "ci95_high": interval[1],
        "control_low": span[0],
        "control_high": span[1],
        "p_value": chance_of_rank(delta, finding.damages),
        "verdict": finding.verdict,
        "expected": expected_verdict(cell.recipe.to_json(), task.name),
        "controls": [
            {"dims": list(dims), "value": base.value + effect.damage}
            for dims, effect in controls.items()
        ],
        "parameters_changed": plan.parameters_changed,
        "record": _record(bench, plan, prepared, scorer.session.providers),
    }


def _edited(artifact: Artifact, plan: Plan) -> Artifact:
    """Return the artifact that ``write_artifact`` would make of a plan, in memory."""
    baseline = {edit.tensor: artifact.baseline[edit.tensor] for edit in plan.edits}
    return dataclasses.replace(
        artifact,
        record=dataclasses.replace(
            artifact.record,
            recipe=plan.recipe.to_json(),
            dims=plan.dims,
            edits=plan.edits,
            parameters_changed=plan.parameters_changed,
        ),
        baseline=baseline,
        patched={
            edit.tensor: with_slices(baseline[edit.tensor], edit.axis, edit.dims, edit.new)
            for edit in plan.edits
        },
    )


def _observe(
    bench: Bench, prepared: Workload, edited: Artifact, dims: tuple[int, ...], baseline: Floats
) -> Scores:
    variant = Variant(f"dims {', '.join(map(str, dims))}", dims)
    observed = bench.scorer(prepared, edited).observe(variant, prepared.examples)
    return _score(prepared, observed, baseline)


def _score(prepared: Workload, observed: Floats, baseline: Floats) -> Scores:
    task = prepared.task
    kept = task.against(observed, baseline)
    return task.scores(kept, prepared.settings)[task.metric]


def _control(
    bench: Bench,
    prepared: Workload,
    edited: Artifact,
    dims: tuple[int, ...],
    settings: object,
    baseline: Floats,
) -> Effect:
    """Measure a random removal, or find what another cell has measured of it."""
    recipe = edited.record.recipe
    tensors = tuple(edit.tensor for edit in edited.record.edits)
    key = (settings, recipe["mode"], recipe["factor"], tensors, dims)
    if key not in bench.controls:
        scored = _observe(bench, prepared, edited, dims, baseline)
        within = functools.partial(paired_interval, texts=number_texts(prepared.examples))
        bench.controls[key] = effect_of(scored, _score(prepared, baseline, baseline), within)
    return bench.controls[key]


def _draw_controls(edited: Artifact, count: int, seed: int) -> Iterator[tuple[int, ...]]:
    """Draw sets of as many dims as were edited, none of which they have, each once.

    All cells with the same seed and number of dims go through one series of sets and leave out
    those that share a dim with their own, so that most sets are common to most cells. Where too
    few are left, because a cell edits many dims, it draws its own.
    """
    dims, hidden = edited.record.dims, edited.record.hidden_size
    own = draw_controls(edited, count, seed)  # refuses a number of controls that cannot be had
    rng = np.random.default_rng([seed, len(dims), hidden])
    shared: dict[tuple[int, ...], None] = {}
    for _ in range(_DRAWS * count):
        if len(shared) == count:
            break
        chosen = draw_dims(hidden, len(dims), rng)
        if not set(chosen) & set(dims):
            shared[chosen] = None
    yield from shared if len(shared) == count else (variant.dims for variant in own)


def _record(
    bench: Bench, plan: Plan, prepared: Workload, providers: tuple[str, ...]
) -> dict[str, Any]:
    """Return what reproduces the cell: ``patch`` with its recipe, then ``eval``."""
    return {
        "model": bench.checkpoint.name,
        "revision": bench.checkpoint.revision,
        "files": bench.hashes,
        "recipe": plan.recipe.to_json(),
        "dims": list(plan.dims),
        "parameters_total": bench.checkpoint.parameters_total,
        "data_sha256": prepared.dataset.sha256,
        "providers": list(providers),
        "versions": {
            "surgeon": __version__,
            "onnxruntime": onnxruntime.__version__,
            "numpy": np.__version__,
        },
    }


_KEY_BYTES = 12
# What an export depends on beside the weights.
_DECIDING = ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "merges.txt")


@dataclass(frozen=True, eq=False)
class Bench:
    """An open model: its checkpoint, its unpatched artifact, and what was scored on it so far.

    ``hashes`` are those of the files that it was made of. ``baselines`` and ``controls`` keep what
    cells have in common: the baseline of a task and seed, and random removals of operations
    that differ in their dimensions alone.
    """

    checkpoint: Checkpoint
    artifact: Artifact
    hashes: dict[str, str]
    provider: ProviderName
    sessions: dict[bool, Session] = field(default_factory=dict)
    baselines: dict[EvaluationSettings, tuple[Workload, Floats]] = field(default_factory=dict)
    controls: dict[object, Effect] = field(default_factory=dict)

    def scorer(self, prepared: Workload, artifact: Artifact) -> Scorer:
        """Return what scores variants of an artifact of this model, all in one session."""
        per_token = prepared.task.reduce is not None
        if per_token not in self.sessions:
            self.sessions[per_token] = open_session(
                self.artifact.model_path,
                self.artifact.facts.output,
                tuple(self.artifact.baseline),
                self.provider,
                further=self.artifact.facts.outputs[1:],
                per_token=per_token,
            )
        return Scorer(artifact, prepared.task, self.sessions[per_token])

    def baseline(self, settings: EvaluationSettings) -> tuple[Workload, Floats]:
        """Return the examples of an evaluation and what the unpatched model gives for them."""
        settings = dataclasses.replace(settings, controls=None)  # which change neither
        if settings not in self.baselines:
            prepared = prepare(self.artifact, settings)
            scorer = self.scorer(prepared, self.artifact)
            observed = scorer.observe(BASELINE, prepared.examples)
            self.baselines[settings] = prepared, observed
        return self.baselines[settings]


def open_bench(model: Model, sites: Collection[str], folder: Path, provider: ProviderName) -> Bench:
    """Open a model and export it unpatched, unless an earlier run or another process has.

    Args:
        model: which one.
        sites: the sites that any cell of the sweep edits. They are a matter of the sweep, not of
            the cell, so that every cell is scored in the same graph.
        folder: where exported models lie, each in a directory of its own.
        provider: where onnxruntime runs.

    Raises:
        SurgeonError: the model cannot be opened, exported or run.
    """
    checkpoint = open_checkpoint(
        model.model, revision=model.revision, sites_pattern=model.sites_pattern
    )
    there = {site.role for site in checkpoint.sites}
    roles = tuple(sorted(there if "all" in sites else there.intersection(sites))) or ("output",)
    hashes = hashes_of(checkpoint)
    # With the hashes, since the files may change and an export of others must not serve.
    facts = json.dumps([dataclasses.asdict(model), roles, hashes], sort_keys=True)
    key = blake3(facts.encode()).hexdigest(_KEY_BYTES)
    exported = folder / key
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / f"{key}.lock"):
        if not (exported / RECORD).is_file():
            nothing = Recipe(dims=(0,), mode="scale", factor=1.0, sites=roles)
            write_artifact(make_plan(checkpoint, nothing), exported, progress=silent)
    return Bench(checkpoint, open_artifact(exported), hashes, provider)


def hashes_of(checkpoint: Checkpoint) -> dict[str, str]:
    """Return the BLAKE3 hash of each weight file and of what else decides the export, by name."""
    paths = [file.path for file in checkpoint.files]
    beside = [checkpoint.directory / name for name in _DECIDING if not checkpoint.alone]
    return {path.name: hash_file(path).blake3 for path in (*paths, *beside) if path.is_file()}


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process at a time through; on a system without such locks, all."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        with contextlib.suppress(ImportError):
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Measurer:
    """Measures the cells of a sweep; keeps the last model open, and why one could not be opened.

    ``folder`` is where it exports models, and ``sites`` has those that the cells of each model
    edit. ``hashes`` are those of the files that an earlier run measured a model with.
    """

    folder: Path
    provider: ProviderName
    sites: Mapping[Model, tuple[str, ...]]
    hashes: Mapping[Model, Mapping[str, str]] = field(default_factory=dict)
    benches: dict[Model, Bench] = field(default_factory=dict)
    refused: dict[Model, str] = field(default_factory=dict)

    def __call__(self, cell: Cell) -> Row:
        """Return what a cell's row says of its measurement.

        Raises:
            SurgeonError: as ``measure``, or its model cannot be opened or has changed.
        """
        return measure(self._bench(cell.model), cell)

    def _bench(self, model: Model) -> Bench:
        if model in self.refused:
            raise SurgeonError(self.refused[model])
        if model not in self.benches:
            self.benches.clear()  # a model's memory before the next one's
            try:
                bench = open_bench(model, self.sites[model], self.folder, self.provider)
                _check_same(model, bench.hashes, self.hashes.get(model))
            except Exception as error:
                self.refused[model] = describe(error)
                raise
            self.benches[model] = bench
        return self.benches[model]


def _check_same(model: Model, now: Mapping[str, str], before: Mapping[str, str] | None) -> None:
    # Of a model on this machine the sweep has made sure; a branch on the Hub may have moved.
    if before is not None and now != before:
        raise EvaluationError(
            f"{model.model}: has other files than its rows that are there were measured with; "
            "name another output, or the revision of those rows"
        )
