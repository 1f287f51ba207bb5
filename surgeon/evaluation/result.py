"""The result of an evaluation, as Python sees it and as ``eval.json`` holds it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from surgeon.edit.expectation import ExpectedVerdict
from surgeon.edit.source_files import EVALUATION
from surgeon.edit.staging import replace_file
from surgeon.errors import EvaluationError
from surgeon.evaluation.verdict import Verdict
from surgeon.model.files import parse_json


@dataclass(frozen=True)
class Score:
    """What one variant scored: ``value`` is the task's metric, ``others`` the further numbers."""

    dims: tuple[int, ...]
    value: float
    others: Mapping[str, float]


@dataclass(frozen=True)
class Dataset:
    """What was measured on. ``tokens`` and ``examples`` are those that were scored on.

    ``scored_tokens`` is 0 where the score is not per token. ``skipped`` texts had nothing to
    score, ``truncated`` ones were cut to the model's length, ``unknown`` tokens are not in the
    vocabulary. ``unit`` is what each example is one of: texts, windows, blocks or pairs.
    """

    name: str
    sha256: str
    examples: int
    tokens: int
    scored_tokens: int
    skipped: int
    truncated: int
    unknown: int
    unit: str = "texts"


@dataclass(frozen=True)
class Dose:
    """The score with the first of the dims alone, its change and the interval of that."""

    dims: tuple[int, ...]
    value: float
    delta: float
    ci95: tuple[float, float]


@dataclass(frozen=True)
class Change:
    """How a score differs between the baseline and the patched model, with the 95% interval."""

    delta: float
    ci95: tuple[float, float]


@dataclass(frozen=True)
class FillIn:
    """A text with a blank, and what the baseline and the patched model would put there."""

    text: str
    expected: str
    baseline: str
    patched: str


@dataclass(frozen=True)
class LabelReport:
    """How well one label is found: precision, recall and F1, by name, before and after.

    ``support`` is how many of the data have it.
    """

    label: str
    support: int
    baseline: Mapping[str, float]
    patched: Mapping[str, float]


@dataclass(frozen=True)
class Evaluation:
    """Baseline, patched model and controls, and what follows from them.

    ``delta`` is patched − baseline and ``ci95`` its paired interval; ``control_range``
    is where the delta of a random removal lies, ``usual_range`` what most do for certain, and
    ``p_value`` the chance that one ranks as high among the controls. ``margin`` is the smallest
    damage that matters, and ``needed`` the number of texts that would settle an open verdict.
    ``until_certain`` says whether it was to stop as soon as the verdict was
    settled, and ``stopped_after`` is the number of examples that settled it, None if all did not;
    ``ci95`` is then valid at any number of examples. ``intervals`` has the change of every score.
    ``options`` are those that the task used. ``expected`` is the verdict that the artifact's
    recipe expects.
    """

    model: str
    task: str
    title: str
    metric: str
    unit: str
    baseline: Score
    patched: Score
    controls: tuple[Score, ...]
    delta: float
    ci95: tuple[float, float]
    control_range: tuple[float, float]
    p_value: float
    verdict: Verdict
    seed: int
    mask_rate: float | None
    providers: tuple[str, ...]
    dataset: Dataset
    versions: Mapping[str, str]
    warnings: tuple[str, ...] = ()
    until_certain: bool = False
    stopped_after: int | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    usual_range: tuple[float, float] = (0.0, 0.0)
    margin: float = 0.0
    needed: int | None = None
    intervals: Mapping[str, Change] = field(default_factory=dict)
    dose: tuple[Dose, ...] = ()
    fill_ins: tuple[FillIn, ...] = ()
    labels: tuple[LabelReport, ...] = ()
    expected: ExpectedVerdict | None = None

    @property
    def damages(self) -> tuple[float, ...]:
        """How much worse each control scored than the baseline."""
        return tuple(control.value - self.baseline.value for control in self.controls)

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``eval.json`` and ``eval --json``."""
        return {
            "model": self.model,
            "task": self.task,
            "title": self.title,
            "metric": self.metric,
            "unit": self.unit,
            "baseline": _score(self.baseline),
            "patched": _score(self.patched),
            "controls": [_score(control) for control in self.controls],
            "delta": self.delta,
            "ci95": list(self.ci95),
            "control_range": list(self.control_range),
            "usual_range": list(self.usual_range),
            "margin": self.margin,
            "needed": self.needed,
            "p_value": self.p_value,
            "verdict": self.verdict,
            "expected": self.expected,
            "seed": self.seed,
            "mask_rate": self.mask_rate,
            "options": dict(self.options),
            "providers": list(self.providers),
            "dataset": vars(self.dataset),
            "versions": dict(self.versions),
            "warnings": list(self.warnings),
            "until_certain": self.until_certain,
            "stopped_after": self.stopped_after,
            "intervals": {name: asdict(change) for name, change in self.intervals.items()},
            "dose": [asdict(dose) for dose in self.dose],
            "fill_ins": [asdict(fill_in) for fill_in in self.fill_ins],
            "labels": [asdict(report) for report in self.labels],
        }


def save_evaluation(evaluation: Evaluation, artifact: Path) -> Path:
    """Write ``surgeon/eval.json`` into an artifact, whole or not at all, and return its path."""
    path = artifact / EVALUATION
    text = json.dumps(evaluation.to_json(), indent=1, allow_nan=False) + "\n"
    replace_file(path, text.encode())
    return path


def read_evaluation(artifact: Path) -> Evaluation | None:
    """Read ``surgeon/eval.json`` of an artifact; None if it was not evaluated.

    Raises:
        EvaluationError: the file is damaged, or of another version.
    """
    path = artifact / EVALUATION
    if not path.is_file():
        return None
    import pydantic

    try:
        document = parse_json(path.read_bytes())
        for name in ("baseline", "patched"):
            document[name] = _score_fields(document[name])
        document["controls"] = [_score_fields(control) for control in document["controls"]]
        return pydantic.TypeAdapter(Evaluation).validate_python(document)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise EvaluationError(f"{path}: damaged or of another version; run surgeon eval") from error


def _score_fields(document: Any) -> dict[str, Any]:
    others = {name: value for name, value in document.items() if name not in ("dims", "value")}
    return {"dims": document["dims"], "value": document["value"], "others": others}


def _score(score: Score) -> dict[str, Any]:
    return {"dims": list(score.dims), "value": score.value, **score.others}
