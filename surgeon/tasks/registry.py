"""What a model is scored on: one module per task, found by the name in the record or ``task``."""

from __future__ import annotations

from surgeon.tasks.causal import CAUSAL
from surgeon.tasks.classification import CLASSIFICATION, REGRESSION
from surgeon.tasks.glue import GLUE
from surgeon.tasks.masked import DENOISING, MASKED, PERMUTED
from surgeon.tasks.pairs import PAIRS
from surgeon.tasks.questions import QUESTIONS
from surgeon.tasks.replaced import REPLACED
from surgeon.tasks.similarity import DRIFT, SIMILARITY
from surgeon.tasks.task import Task
from surgeon.tasks.token_labels import TOKEN_LABELS

_ALL = (
    MASKED,
    CAUSAL,
    REPLACED,
    PERMUTED,
    DENOISING,
    PAIRS,
    CLASSIFICATION,
    REGRESSION,
    *GLUE,
    TOKEN_LABELS,
    QUESTIONS,
    DRIFT,
    SIMILARITY,
)
TASKS: dict[str, Task] = {task.name: task for task in _ALL}
