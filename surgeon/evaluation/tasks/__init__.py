"""What a model is scored on: one module per task, found by the name in the record."""

from surgeon.evaluation.tasks.causal import CAUSAL
from surgeon.evaluation.tasks.drift import DRIFT
from surgeon.evaluation.tasks.masked import MASKED
from surgeon.evaluation.tasks.task import Scores, Settings, Task

TASKS: dict[str, Task] = {task.name: task for task in (MASKED, CAUSAL, DRIFT)}

__all__ = ["TASKS", "Scores", "Settings", "Task"]
