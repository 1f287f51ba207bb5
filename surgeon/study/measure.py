"""A cell on its model → what the row of results says of it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnxruntime

from surgeon._version import __version__
from surgeon.evaluation.artifact import Artifact
from surgeon.evaluation.evidence import Evidence, number_texts, why_unskilled
from surgeon.evaluation.prepare import Prepared
from surgeon.evaluation.variants import Variant, draw_controls
from surgeon.evaluation.verdict import Effect, effect_of, margin_of, weigh
from surgeon.scoring.statistics import chance_of_rank, is_firm, paired_interval
from surgeon.scoring.tasks import Scores
from surgeon.scoring.tasks.task import Floats
from surgeon.study.bench import Bench
from surgeon.study.cells import Cell
from surgeon.study.cost import CONTROLS
from surgeon.surgery.expectation import expected_verdict
from surgeon.surgery.plan import Plan, make_plan
from surgeon.surgery.record import edit_record
from surgeon.surgery.selection import draw_dims
from surgeon.surgery.slices import with_slices

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
    """Return the artifact that ``operate`` would make of a plan, in memory."""
    baseline = {edit.tensor: artifact.baseline[edit.tensor] for edit in plan.edits}
    return dataclasses.replace(
        artifact,
        record=dataclasses.replace(
            artifact.record,
            recipe=plan.recipe.to_json(),
            dims=plan.dims,
            edits=tuple(edit_record(edit, "") for edit in plan.edits),
            parameters_changed=plan.parameters_changed,
        ),
        baseline=baseline,
        patched={
            edit.tensor: with_slices(baseline[edit.tensor], edit.axis, edit.dims, edit.new)
            for edit in plan.edits
        },
    )


def _observe(
    bench: Bench, prepared: Prepared, edited: Artifact, dims: tuple[int, ...], baseline: Floats
) -> Scores:
    variant = Variant(f"dims {', '.join(map(str, dims))}", dims)
    observed = bench.scorer(prepared, edited).observe(variant, prepared.examples)
    return _score(prepared, observed, baseline)


def _score(prepared: Prepared, observed: Floats, baseline: Floats) -> Scores:
    task = prepared.task
    kept = task.against(observed, baseline)
    return task.scores(kept, kept, prepared.settings)[task.metric]


def _control(
    bench: Bench,
    prepared: Prepared,
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
    bench: Bench, plan: Plan, prepared: Prepared, providers: tuple[str, ...]
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
