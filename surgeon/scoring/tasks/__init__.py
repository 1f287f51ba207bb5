"""What a model is scored on: one module per task, found by the name in the record."""

from surgeon.scoring.tasks.causal import CAUSAL
from surgeon.scoring.tasks.drift import DRIFT
from surgeon.scoring.tasks.masked import MASKED
from surgeon.scoring.tasks.task import Scores, Settings, Task

TASKS: dict[str, Task] = {task.name: task for task in (MASKED, CAUSAL, DRIFT)}

__all__ = ["TASKS", "Scores", "Settings", "Task"]
