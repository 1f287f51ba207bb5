"""What a model is scored on: one module per task, found by the name in the record or ``--task``."""

from surgeon.scoring.tasks.causal import CAUSAL
from surgeon.scoring.tasks.classification import CLASSIFICATION
from surgeon.scoring.tasks.denoising import DENOISING
from surgeon.scoring.tasks.drift import DRIFT
from surgeon.scoring.tasks.glue import GLUE
from surgeon.scoring.tasks.masked import MASKED
from surgeon.scoring.tasks.pairs import PAIRS
from surgeon.scoring.tasks.permuted import PERMUTED
from surgeon.scoring.tasks.questions import QUESTIONS
from surgeon.scoring.tasks.regression import REGRESSION
from surgeon.scoring.tasks.replaced import REPLACED
from surgeon.scoring.tasks.similarity import SIMILARITY
from surgeon.scoring.tasks.task import Scores, Settings, Task
from surgeon.scoring.tasks.token_labels import TOKEN_LABELS

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

__all__ = ["TASKS", "Scores", "Settings", "Task"]
