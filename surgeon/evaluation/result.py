"""The result of an evaluation, as Python sees it and as ``eval.json`` holds it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from surgeon.edit.files import EVALUATION, EVALUATIONS
from surgeon.edit.recipe import ExpectedVerdict
from surgeon.edit.staging import is_result, replace_file
from surgeon.errors import EvaluationError
from surgeon.evaluation.verdict import Verdict
from surgeon.evaluation.workload import Dataset
from surgeon.model.files import parse_json
from surgeon.settings import reader
from surgeon.tasks.statistics import Interval
from surgeon.tasks.task import INVERTED

_NAME = 100  # characters of the name of an evaluation's file that say what it is of


@dataclass(frozen=True)
class Score:
    """What one variant scored: ``value`` is the task's metric, ``others`` the further numbers."""

    dims: tuple[int, ...]
    value: float
    others: Mapping[str, float]


@dataclass(frozen=True)
class Dose:
    """The score with the first of the dims alone, its change and the interval of that."""

    dims: tuple[int, ...]
    value: float
    delta: float
    ci95: Interval


@dataclass(frozen=True)
class Change:
    """How a score differs between the baseline and the patched model, with the 95% interval."""

    delta: float
    ci95: Interval


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
class Cost:
    """What a form costs a variant: how much worse it scores than the same variant in float.

    ``controls`` have one each, and ``difference`` is how much more it costs the patched model than
    the baseline (None: of a score that no sum over texts gives, no interval of that is known).
    """

    baseline: Change
    patched: Change
    controls: tuple[float, ...]
    difference: Change | None


@dataclass(frozen=True)
class Quantized:
    """The same evaluation with every variant in another form, and what that form costs."""

    form: Literal["int8"]
    evaluation: Evaluation
    cost: Cost


@dataclass(frozen=True, kw_only=True, repr=False)
class Evaluation:
    """Baseline, patched model and controls, and what follows from them.

    ``delta`` is patched − baseline and ``ci95`` its paired interval; ``control_range``
    is where the delta of a random removal lies, ``usual_range`` what most do for certain, and
    ``p_value`` the chance that one ranks as high among the controls. ``margin`` is the smallest
    damage that matters, and ``needed`` the number of texts that would settle an open verdict.
    ``expected`` is the verdict that the artifact's recipe expects. ``options`` are those that the
    task used. ``until_certain`` says whether it was to stop as soon as the verdict was settled,
    and ``stopped_after`` is the number of examples that settled it (None: all were scored).
    ``intervals`` has the change of every score, and ``quantized`` all of it in int8.

    The fields stand in the order of ``eval.json``; those with a default are missing in older ones.
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
    ci95: Interval
    control_range: Interval
    usual_range: Interval = (0.0, 0.0)
    margin: float = 0.0
    needed: int | None = None
    p_value: float
    verdict: Verdict
    expected: ExpectedVerdict | None = None
    seed: int
    mask_rate: float | None
    options: Mapping[str, object] = field(default_factory=dict)
    providers: tuple[str, ...]
    dataset: Dataset
    versions: Mapping[str, str]
    warnings: tuple[str, ...] = ()
    until_certain: bool = False
    stopped_after: int | None = None
    intervals: Mapping[str, Change] = field(default_factory=dict)
    dose: tuple[Dose, ...] = ()
    fill_ins: tuple[FillIn, ...] = ()
    labels: tuple[LabelReport, ...] = ()
    quantized: Quantized | None = None

    def __post_init__(self) -> None:
        if not self.controls:
            raise ValueError("an evaluation has random controls")

    @property
    def damages(self) -> tuple[float, ...]:
        """How much worse each control scored than the baseline."""
        return tuple(control.value - self.baseline.value for control in self.controls)

    @property
    def columns(self) -> list[str]:
        """The columns of a table of scores, beside the variant and its dims."""
        others = [name for name in self.baseline.others if name != self.metric]
        own = self.metric.removeprefix(INVERTED)
        first = [own, self.metric] if own in others else [self.metric]
        return [*first, "change", *(name for name in others if name not in first)]

    def row(self, score: Score) -> list[str]:
        """Return what stands in those columns for a variant."""
        values = {**score.others, self.metric: score.value}
        shown = {name: f"{value:.4g}" for name, value in values.items()}
        if score is not self.baseline:
            shown["change"] = f"{score.value - self.baseline.value:+.4g}"
        return [shown.get(name, "") for name in self.columns]

    def __repr__(self) -> str:
        scores = f"{self.metric} {self.baseline.value:.4g} → {self.patched.value:.4g}"
        return f"<Evaluation of {self.model}: {self.verdict}, {scores}>"

    def to_frame(self) -> Any:
        """Return the scores of every variant as a pandas ``DataFrame``, which must be installed."""
        import pandas as pd

        variants = [("baseline", self.baseline), ("patched", self.patched)]
        variants += [("control", control) for control in self.controls]
        return pd.DataFrame(
            {"variant": name, "dims": score.dims, self.metric: score.value, **score.others}
            for name, score in variants
        )

    def _repr_html_(self) -> str | None:
        return self.to_frame()._repr_html_() if find_spec("pandas") else None

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``eval.json`` and ``eval --json``."""
        document: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        for one in _with_quantized(document):
            for score in (one["baseline"], one["patched"], *one["controls"]):
                score.update(score.pop("others"))
            if one["quantized"] is None:
                del one["quantized"]
        return document


def _with_quantized(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield an evaluation as a document, and that of another form which is in it."""
    if quantized := document.get("quantized"):
        yield quantized["evaluation"]
    yield document


def save_evaluation(evaluation: Evaluation, artifact: str | Path) -> Path:
    """Write an evaluation into an artifact, and return its path, which is ``surgeon/eval.json``.

    It is also kept in ``surgeon/evaluations/``, in place of an earlier one on the same task and
    data alone. Each file appears whole or not at all.
    """
    path, data = Path(artifact) / EVALUATION, evaluation.dataset
    content = (json.dumps(evaluation.to_json(), indent=1, allow_nan=False) + "\n").encode()
    name = re.sub(r"[^\w.-]+", "-", f"{evaluation.task}-{data.name}", flags=re.ASCII)[:_NAME]
    kept = Path(artifact) / EVALUATIONS / f"{name}-{data.sha256[:8]}.json"
    kept.parent.mkdir(exist_ok=True)
    replace_file(kept, content)
    replace_file(path, content)
    return path


def read_evaluations(artifact: str | Path) -> tuple[Evaluation, ...]:
    """Read what was measured of an artifact: the newest evaluation on each task and data set.

    Raises:
        EvaluationError: a file is damaged, or of another version.
    """
    last = read_evaluation(artifact)
    paths = sorted((Path(artifact) / EVALUATIONS).glob("[!.]*"))
    found = [_read(path) for path in paths if is_result(f"{EVALUATIONS}/{path.name}")]
    # That of an artifact which an earlier version evaluated is in eval.json alone.
    return tuple(found if last is None or last in found else [last, *found])


def read_evaluation(artifact: str | Path) -> Evaluation | None:
    """Read the last evaluation of an artifact, ``surgeon/eval.json``; None if there is none.

    Raises:
        EvaluationError: the file is damaged, or of another version.
    """
    path = Path(artifact) / EVALUATION
    return _read(path) if path.is_file() else None


def _read(path: Path) -> Evaluation:
    try:
        document = parse_json(path.read_bytes())
        for one in _with_quantized(document):
            for score in (one["baseline"], one["patched"], *one["controls"]):
                names = [name for name in score if name not in ("dims", "value")]
                score["others"] = {name: score.pop(name) for name in names}
        return reader(Evaluation).validate_python(document)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise EvaluationError(f"{path}: damaged or of another version; run surgeon eval") from error
