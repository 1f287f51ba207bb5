"""Find, edit and restore the outlier dimensions of pre-trained Transformers, and prove the effect.

The way of the data, each step a function::

    checkpoint = open_checkpoint("all-MiniLM-L6-v2/")
    ranking = rank_by_layernorm(checkpoint)
    plan = make_plan(checkpoint, Recipe(dims=(99, 157)))
    record = write_artifact(plan, Path("out"))
    evaluation = evaluate(Path("out"))

Names are imported when they are first used, so that ``import surgeon`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from surgeon._version import __version__

if TYPE_CHECKING:
    from surgeon.edit.plan import Plan as Plan
    from surgeon.edit.plan import make_plan as make_plan
    from surgeon.edit.push import push as push
    from surgeon.edit.recipe import Recipe as Recipe
    from surgeon.edit.recipe_file import load_recipe as load_recipe
    from surgeon.edit.record import Record as Record
    from surgeon.edit.record import read_record as read_record
    from surgeon.edit.restore import restore as restore
    from surgeon.edit.small_patch import plan_from_small_patch as plan_from_small_patch
    from surgeon.edit.small_patch import write_small_patch as write_small_patch
    from surgeon.edit.verify import Comparison as Comparison
    from surgeon.edit.verify import Verification as Verification
    from surgeon.edit.verify import compare as compare
    from surgeon.edit.verify import verify as verify
    from surgeon.edit.write import Export as Export
    from surgeon.edit.write import export as export
    from surgeon.edit.write import write_artifact as write_artifact
    from surgeon.errors import SurgeonError as SurgeonError
    from surgeon.evaluation.evaluate import evaluate as evaluate
    from surgeon.evaluation.result import Evaluation as Evaluation
    from surgeon.evaluation.result import read_evaluation as read_evaluation
    from surgeon.evaluation.result import save_evaluation as save_evaluation
    from surgeon.figures import plot_ranking as plot_ranking
    from surgeon.figures import plot_trace as plot_trace
    from surgeon.figures.report import write_report as write_report
    from surgeon.figures.sweep_report import write_sweep_report as write_sweep_report
    from surgeon.model import Checkpoint as Checkpoint
    from surgeon.model import open_checkpoint as open_checkpoint
    from surgeon.model import open_for_scan as open_for_scan
    from surgeon.onnx_files.open_onnx import OnnxModel as OnnxModel
    from surgeon.onnx_files.open_onnx import open_onnx as open_onnx
    from surgeon.onnx_files.patch import write_onnx_artifact as write_onnx_artifact
    from surgeon.onnx_files.plan import OnnxPlan as OnnxPlan
    from surgeon.onnx_files.plan import make_onnx_plan as make_onnx_plan
    from surgeon.ranking import Agreement as Agreement
    from surgeon.ranking import Options as Options
    from surgeon.ranking import Ranking as Ranking
    from surgeon.ranking import compare_detectors as compare_detectors
    from surgeon.ranking import rank_by_layernorm as rank_by_layernorm
    from surgeon.ranking import rank_dimensions as rank_dimensions
    from surgeon.ranking import read_zscores as read_zscores
    from surgeon.study.atlas import build_atlas as build_atlas
    from surgeon.study.atlas_table import Atlas as Atlas
    from surgeon.study.trace import trace_training as trace_training
    from surgeon.study.trace_result import Trace as Trace
    from surgeon.text import Texts as Texts
    from surgeon.text import built_in_sample as built_in_sample
    from surgeon.text import ranking_sample as ranking_sample
    from surgeon.text import read_texts as read_texts


_HOMES = {
    "Agreement": "surgeon.ranking",
    "Atlas": "surgeon.study.atlas_table",
    "Checkpoint": "surgeon.model",
    "Comparison": "surgeon.edit.verify",
    "Evaluation": "surgeon.evaluation.result",
    "Export": "surgeon.edit.write",
    "OnnxModel": "surgeon.onnx_files.open_onnx",
    "OnnxPlan": "surgeon.onnx_files.plan",
    "Options": "surgeon.ranking",
    "Plan": "surgeon.edit.plan",
    "Ranking": "surgeon.ranking",
    "Recipe": "surgeon.edit.recipe",
    "Record": "surgeon.edit.record",
    "SurgeonError": "surgeon.errors",
    "TaskOptions": "surgeon.edit.expectation",
    "Texts": "surgeon.text",
    "Trace": "surgeon.study.trace_result",
    "Verification": "surgeon.edit.verify",
    "build_atlas": "surgeon.study.atlas",
    "built_in_sample": "surgeon.text",
    "compare": "surgeon.edit.verify",
    "compare_detectors": "surgeon.ranking",
    "evaluate": "surgeon.evaluation.evaluate",
    "export": "surgeon.edit.write",
    "load_recipe": "surgeon.edit.recipe_file",
    "make_onnx_plan": "surgeon.onnx_files.plan",
    "make_plan": "surgeon.edit.plan",
    "open_checkpoint": "surgeon.model",
    "open_for_scan": "surgeon.model",
    "open_onnx": "surgeon.onnx_files.open_onnx",
    "write_artifact": "surgeon.edit.write",
    "write_onnx_artifact": "surgeon.onnx_files.patch",
    "plan_from_small_patch": "surgeon.edit.small_patch",
    "plot_ranking": "surgeon.figures",
    "plot_trace": "surgeon.figures",
    "push": "surgeon.edit.push",
    "rank_by_layernorm": "surgeon.ranking",
    "rank_dimensions": "surgeon.ranking",
    "ranking_sample": "surgeon.text",
    "read_evaluation": "surgeon.evaluation.result",
    "read_record": "surgeon.edit.record",
    "read_texts": "surgeon.text",
    "read_zscores": "surgeon.ranking",
    "restore": "surgeon.edit.restore",
    "save_evaluation": "surgeon.evaluation.result",
    "trace_training": "surgeon.study.trace",
    "verify": "surgeon.edit.verify",
    "write_report": "surgeon.figures.report",
    "write_sweep_report": "surgeon.figures.sweep_report",
    "write_small_patch": "surgeon.edit.small_patch",
}

__all__ = ["__version__", *_HOMES]  # noqa: PLE0604  (the names of the table above)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'surgeon' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
