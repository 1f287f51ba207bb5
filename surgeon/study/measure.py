"""A cell on its model → what the row of results says of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from blake3 import blake3

from surgeon._version import __version__
from surgeon.edit import disk
from surgeon.edit.changes import with_slices
from surgeon.edit.files import hash_file
from surgeon.edit.plan import Plan, draw_dims, edits_meant, make_plan
from surgeon.edit.recipe import Recipe, expected_verdict
from surgeon.edit.write import write_artifact
from surgeon.errors import EvaluationError, SurgeonError
from surgeon.evaluation.artifact import Artifact, draw_controls, open_artifact
from surgeon.evaluation.notes import notes_of
from surgeon.evaluation.result import Score
from surgeon.evaluation.runner import OnnxRunner, open_runner
from surgeon.evaluation.session import ProviderName
from surgeon.evaluation.verdict import find
from surgeon.evaluation.workload import Workload, prepare
from surgeon.model import Checkpoint, open_checkpoint
from surgeon.model.files import RECORD
from surgeon.progress import silent
from surgeon.study.engines import Row, describe
from surgeon.study.grid import Cell, Model
from surgeon.tasks.registry import CONTROLS, EvaluationSettings
from surgeon.tasks.statistics import chance_of_rank
from surgeon.tasks.task import BASELINE, Floats, Task, Variant, compare_variants, observe

_DRAWS = 20  # for each control that is wanted, before controls of the cell's own are drawn
_KEY_BYTES = 12
# What the dimensions of a ranking depend on.
_CHOOSES = ("remove_outliers", "method", "sigma", "min_layers", "min_damage", "relax")
# What an export depends on beside the weights.
_DECIDING = ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "merges.txt")


def measure(opened: OpenModel, cell: Cell) -> dict[str, Any]:
    """Measure a cell and return its part of the row, as plain JSON values.

    The patched model, the baseline and the interval are those of ``evaluate`` on the artifact of
    the cell's recipe. The controls are random removals too, but drawn so that cells share them.

    Raises:
        SurgeonError: the recipe does not fit the model, or the evaluation is not possible.
    """
    settings, plan = cell.evaluation, opened.plan(cell.recipe)
    work, baseline = opened.baseline(settings)
    artifact = edited(opened.artifact, plan)
    count = CONTROLS if settings.controls is None else settings.controls
    controls = list(_draw_controls(artifact, count, settings.seed or 0))
    operation = (settings, plan.recipe.mode, plan.recipe.factor, tuple(artifact.baseline))
    new = [dims for dims in controls if (operation, dims) not in opened.controls]
    runner = opened.runner(work.task, artifact)
    variants = (BASELINE, Variant("patched", plan.dims), *(Variant("control", d) for d in new))
    base, patched, *rows = compare_variants(runner, work.examples, variants, baseline)
    opened.controls.update(zip(((operation, dims) for dims in new), rows, strict=True))
    kept = np.stack([base, patched, *(opened.controls[operation, dims] for dims in controls)])
    finding = find(work, kept, unchanged=plan.parameters_changed == 0)
    values = [work.task.scores(one, work.settings)[work.task.metric].value for one in kept]
    scores = [Score(*one, {}) for one in zip(controls, values[2:], strict=True)]
    delta, dataset = finding.patched.damage, work.dataset()
    # A cell is scored on all texts, where ``evaluate`` may stop early.
    evaluation = settings.model_copy(update={"until_certain": False})
    recipe = plan.recipe.model_copy(update={"evaluation": evaluation})
    return {
        "dims": plan.dims,
        "task": work.task.name,
        "metric": work.task.metric,
        "examples": dataset.examples,
        "tokens": dataset.tokens,
        "baseline": values[0],
        "patched": values[1],
        "delta": delta,
        "ci95_low": finding.patched.interval[0],
        "ci95_high": finding.patched.interval[1],
        "control_low": finding.control_range[0],
        "control_high": finding.control_range[1],
        "p_value": chance_of_rank(delta, finding.damages),
        "verdict": finding.verdict,
        "expected": expected_verdict(cell.recipe.to_json(), work.task.name),
        "warnings": notes_of(artifact, work, kept, scores, finding) or None,
        "controls": [{"dims": score.dims, "value": score.value} for score in scores],
        "parameters_changed": plan.parameters_changed,
        # What reproduces the cell: ``patch`` with its recipe, then ``eval``.
        "record": {
            "model": opened.checkpoint.name,
            "revision": opened.checkpoint.revision,
            "files": opened.hashes,
            "recipe": recipe.to_json(),
            "dims": plan.dims,
            "parameters_total": opened.checkpoint.parameters_total,
            "data_sha256": dataset.sha256,
            "providers": runner.session.providers,
            "versions": {
                "surgeon": __version__,
                "onnxruntime": onnxruntime.__version__,
                "numpy": np.__version__,
            },
        },
    }


def edited(artifact: Artifact, plan: Plan) -> Artifact:
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
            ranked_on=plan.ranked_on,
        ),
        baseline=baseline,
        patched={
            edit.tensor: with_slices(baseline[edit.tensor], edit.axis, edit.dims, edit.new)
            for edit in plan.edits
        },
    )


def _draw_controls(artifact: Artifact, count: int, seed: int) -> Iterator[tuple[int, ...]]:
    """Draw sets of as many dims as were edited, none of which they have, each once.

    All cells with the same seed and number of dims go through one series of sets and leave out
    those that share a dim with their own, so that most sets are common to most cells. Where too
    few are left, because a cell edits many dims, it draws its own.
    """
    dims, hidden = artifact.record.dims, artifact.record.hidden_size
    own = draw_controls(artifact, count, seed)  # refuses a number of controls that cannot be had
    rng = np.random.default_rng([seed, len(dims), hidden])
    shared: dict[tuple[int, ...], None] = {}
    for _ in range(_DRAWS * count):
        if len(shared) == count:
            break
        chosen = draw_dims(hidden, len(dims), rng)
        if not set(chosen) & set(dims):
            shared[chosen] = None
    yield from shared if len(shared) == count else (variant.dims for variant in own)


@dataclass(frozen=True, eq=False)
class OpenModel:
    """An open model: its checkpoint, its unpatched artifact, and what was observed of it so far.

    ``hashes`` are those of the files that it was made of. ``choices``, ``baselines`` and
    ``controls`` keep what cells have in common: the dimensions that a ranking chose, or why it
    could not, the baseline of a task and seed, and random removals of operations that differ only
    in their dimensions.
    """

    checkpoint: Checkpoint
    artifact: Artifact
    hashes: dict[str, str]
    provider: ProviderName
    runners: dict[bool, OnnxRunner] = field(default_factory=dict)
    choices: dict[Recipe, Plan | SurgeonError] = field(default_factory=dict)
    baselines: dict[EvaluationSettings, tuple[Workload, Floats]] = field(default_factory=dict)
    controls: dict[object, Floats] = field(default_factory=dict)

    def plan(self, recipe: Recipe) -> Plan:
        """Return what a recipe does; a ranking runs once for all cells that ask for the same."""
        if recipe.remove_outliers is None:
            return make_plan(self.checkpoint, recipe)
        asked = Recipe(**{name: getattr(recipe, name) for name in _CHOOSES})
        if asked not in self.choices:
            try:
                self.choices[asked] = make_plan(self.checkpoint, asked)
            except SurgeonError as error:
                self.choices[asked] = error
        chosen = self.choices[asked]
        if isinstance(chosen, SurgeonError):
            raise chosen
        recipe = recipe.model_copy(update={"method": chosen.recipe.method})
        edits = edits_meant(self.checkpoint, recipe, chosen.dims)
        return Plan(self.checkpoint, recipe, chosen.dims, edits, ranked_on=chosen.ranked_on)

    def runner(self, task: Task, artifact: Artifact) -> OnnxRunner:
        """Return what runs variants of an artifact of this model, all in one session."""
        inside = task.reduce is not None  # whether the graph scores itself
        if inside not in self.runners:
            self.runners[inside] = open_runner(self.artifact, task, self.provider)
        return dataclasses.replace(self.runners[inside], artifact=artifact, task=task)

    def baseline(self, settings: EvaluationSettings) -> tuple[Workload, Floats]:
        """Return the examples of an evaluation and what is observed of the unpatched model."""
        settings = settings.model_copy(update={"controls": None})  # which change neither
        if settings not in self.baselines:
            work = prepare(self.artifact, settings)
            runner = self.runner(work.task, self.artifact)
            self.baselines[settings] = work, observe(runner, BASELINE, work.examples)
        return self.baselines[settings]


def open_model(
    model: Model, sites: Collection[str], folder: Path, provider: ProviderName
) -> OpenModel:
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
        model.place, revision=model.revision, sites_pattern=model.sites_pattern
    )
    known = {site.role for site in checkpoint.sites}
    roles = tuple(sorted(known if "all" in sites else known.intersection(sites))) or ("output",)
    hashes = hashes_of(checkpoint)
    # With the hashes, since the files may change and an export of others must not serve.
    facts = json.dumps([model.model_dump(), roles, hashes], sort_keys=True)
    key = blake3(facts.encode()).hexdigest(_KEY_BYTES)
    exported = folder / key
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{key}.lock").open("wb") as locked:
        disk.lock(locked.fileno(), wait=True)  # processes may need the same model
        if not (exported / RECORD).is_file():
            nothing = Recipe(dims=(0,), mode="scale", factor=1.0, sites=roles)
            write_artifact(make_plan(checkpoint, nothing), exported, progress=silent)
    return OpenModel(checkpoint, open_artifact(exported), hashes, provider)


def hashes_of(checkpoint: Checkpoint) -> dict[str, str]:
    """Return the BLAKE3 hash of each weight file and of what else decides the export, by name."""
    paths = [file.path for file in checkpoint.files]
    beside = [checkpoint.directory / name for name in _DECIDING if not checkpoint.alone]
    return {path.name: hash_file(path).blake3 for path in (*paths, *beside) if path.is_file()}


@dataclass(frozen=True)
class Measurer:
    """Measures the cells of a sweep; keeps the last model open, and why one could not be opened.

    ``folder`` is where it exports models, and ``sites`` has those that the cells of each model
    edit. ``hashes`` are those of the files that an earlier run measured a model with.
    """

    folder: Path
    provider: ProviderName
    sites: Mapping[Model, tuple[str, ...]]
    hashes: Mapping[Model, Mapping[str, str]]
    opened: dict[Model, OpenModel] = field(default_factory=dict)
    refused: dict[Model, str] = field(default_factory=dict)

    def __call__(self, cell: Cell) -> Row:
        """Return what a cell's row says of its measurement.

        Raises:
            SurgeonError: as ``measure``, or its model cannot be opened or has changed.
        """
        return measure(self._open(cell.model), cell)

    def _open(self, model: Model) -> OpenModel:
        if model in self.refused:
            raise SurgeonError(self.refused[model])
        if model not in self.opened:
            self.opened.clear()  # a model's memory before the next one's
            try:
                opened = open_model(model, self.sites[model], self.folder, self.provider)
                _check_same(model, opened.hashes, self.hashes.get(model))
            except Exception as error:
                self.refused[model] = describe(error)
                raise
            self.opened[model] = opened
        return self.opened[model]


def _check_same(model: Model, now: Mapping[str, str], before: Mapping[str, str] | None) -> None:
    # Of a model on this machine the sweep has made sure; a branch on the Hub may have moved.
    if before is not None and now != before:
        raise EvaluationError(
            f"{model.model}: its files are other files than its rows were measured with; choose "
            "another output, or the revision of those rows"
        )
