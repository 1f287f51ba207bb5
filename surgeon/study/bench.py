"""A model made ready once, of which every cell is a variant in one session.

The model is exported unpatched, as the artifact of an operation that changes nothing. A cell's
edit is made in memory and fed to the session in place of the initializers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from blake3 import blake3

from surgeon.checkpoint import Checkpoint, open_checkpoint
from surgeon.evaluation.artifact import Artifact, open_artifact
from surgeon.evaluation.observe import Scorer
from surgeon.evaluation.prepare import Prepared, prepare
from surgeon.evaluation.session import ProviderName, Session, open_session
from surgeon.evaluation.variants import BASELINE
from surgeon.evaluation.verdict import Effect
from surgeon.progress import silent
from surgeon.scoring.tasks.task import Floats
from surgeon.study.grid import Model
from surgeon.surgery.expectation import EvaluationSettings
from surgeon.surgery.operate import operate
from surgeon.surgery.plan import make_plan
from surgeon.surgery.recipe import Recipe
from surgeon.surgery.source_files import RECORD
from surgeon.surgery.transfer import hash_file

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
    baselines: dict[EvaluationSettings, tuple[Prepared, Floats]] = field(default_factory=dict)
    controls: dict[object, Effect] = field(default_factory=dict)

    def scorer(self, prepared: Prepared, artifact: Artifact) -> Scorer:
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

    def baseline(self, settings: EvaluationSettings) -> tuple[Prepared, Floats]:
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
            operate(make_plan(checkpoint, nothing), exported, progress=silent)
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
