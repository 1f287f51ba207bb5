"""What a model is scored on: one module per task, found by the name in the record."""

from surgeon.errors import EvaluationError
from surgeon.scoring.tasks.causal import CAUSAL
from surgeon.scoring.tasks.drift import DRIFT
from surgeon.scoring.tasks.masked import MASKED
from surgeon.scoring.tasks.task import Scores, Settings, Task


class _Tasks(dict[str, Task]):
    """The tasks by name; a model may have a head that none of them scores."""

    def __missing__(self, name: str) -> Task:
        raise EvaluationError(
            f"the model's head is for {name}, and this surgeon scores {', '.join(self)} alone; "
            "update surgeon"
        )


TASKS: dict[str, Task] = _Tasks({task.name: task for task in (MASKED, CAUSAL, DRIFT)})

__all__ = ["TASKS", "Scores", "Settings", "Task"]
