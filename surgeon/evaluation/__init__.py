"""Artifact → scores on onnxruntime → verdict."""

from surgeon.evaluation.evaluate import evaluate
from surgeon.evaluation.result import Evaluation, save_evaluation

__all__ = ["Evaluation", "evaluate", "save_evaluation"]
