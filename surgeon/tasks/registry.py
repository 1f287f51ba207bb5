"""The tasks by name, a module for each, and what a person sets about an evaluation on one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, ValidationInfo

from surgeon.settings import Count, Flag, Number, Seed, SettingsModel
from surgeon.tasks.causal import CAUSAL
from surgeon.tasks.classification import CLASSIFICATION, GLUE, REGRESSION
from surgeon.tasks.data import HUB_PREFIX
from surgeon.tasks.masked import DENOISING, MASKED, PERMUTED, REPLACED, SEQ2SEQ
from surgeon.tasks.pairs import PAIRS
from surgeon.tasks.questions import QUESTIONS
from surgeon.tasks.similarity import DRIFT, SIMILARITY
from surgeon.tasks.task import Masking, Task
from surgeon.tasks.token_labels import TOKEN_LABELS

_ROWS = (
    MASKED, CAUSAL, REPLACED, PERMUTED, DENOISING, SEQ2SEQ, PAIRS, CLASSIFICATION, REGRESSION,
    *GLUE, TOKEN_LABELS, QUESTIONS, DRIFT, SIMILARITY,
)  # fmt: skip
TASKS: dict[str, Task] = {task.name: task for task in _ROWS}


if TYPE_CHECKING:
    TaskChoice: TypeAlias = str
else:
    TaskChoice = Literal[tuple(TASKS)]

CONTROLS = 10
"""How many random removals an edit is compared with where no setting says otherwise."""


def _from_folder(data: str, info: ValidationInfo) -> str:
    folder: Path | None = info.context
    return data if folder is None or data.startswith(HUB_PREFIX) else str(folder / data)


class TaskOptions(SettingsModel):
    """What a user may set about a task; None: the task's default."""

    mask_rate: Annotated[Number, Field(gt=0, lt=1)] | None = None
    """Share of tokens masked, replaced or predicted; by default the task's own."""
    masking: Masking | None = None
    """Hide every chosen token (all), or 80 in 100 and change 10 (bert)."""
    block: Count | None = None
    """Blocks of N tokens of the corpus, not single texts."""
    stride: Count | None = None
    """Tokens by which windows over a long text move (clm)."""
    bos: Flag | None = None
    """Begin each text with the BOS token, as lm-eval does (clm, pairs)."""
    document: Flag | None = None
    """Read a text file as one text, not line by line."""
    text_column: str | None = None
    """Column of the text, by name or number."""
    pair_column: str | None = None
    """Column of the second text."""
    label_column: str | None = None
    """Column of the label or score."""


class EvaluationSettings(TaskOptions):
    """The evaluation that belongs to an edit; None leaves a setting to ``evaluate``.

    ``task`` is the one that the settings and the expectation are about: another task makes them
    meaningless. In a recipe's file the path of ``data`` starts from that file.
    """

    task: TaskChoice | None = None
    """What to score, such as sts or glue/mnli; without it, what the head is for."""
    data: Annotated[str, AfterValidator(_from_folder)] | None = None
    """A file of texts or of labelled rows; its path starts from this file. Or hf:org/name."""
    controls: Annotated[
        Count | None,
        Field(description=f"How many random removals to compare with; by default {CONTROLS}."),
    ] = None
    seed: Seed | None = None
    """For masks, controls and their order; by default 0."""
    dose: Flag | None = None
    """Score the first dims alone too: one, two, and so on."""
    until_certain: Flag | None = None
    """Stop once an interval valid at any number of texts settles the verdict, or score all."""
    quantize: Literal["int8"] | None = None
    """Score every variant in int8 too, as onnxruntime's dynamic quantization makes it."""
