"""How a model is scored: texts as examples, tasks, and the statistics of a difference."""
