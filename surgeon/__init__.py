"""Find, edit and restore the outlier dimensions of pre-trained Transformers, and prove the effect.

The way of the data, each step a function::

    checkpoint = open_checkpoint("all-MiniLM-L6-v2/")
    ranking = rank_by_layernorm(checkpoint)
    plan = make_plan(checkpoint, Recipe(dims=(99, 157)))
    record = operate(plan, Path("out"))
    evaluation = evaluate(Path("out"))

Names are imported when they are first used, so that ``import surgeon`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from surgeon._version import __version__

if TYPE_CHECKING:
    from surgeon.checkpoint import Checkpoint as Checkpoint
    from surgeon.checkpoint import open_checkpoint as open_checkpoint
    from surgeon.checkpoint import open_for_scan as open_for_scan
    from surgeon.errors import SurgeonError as SurgeonError
    from surgeon.evaluation.evaluate import evaluate as evaluate
    from surgeon.evaluation.result import Evaluation as Evaluation
    from surgeon.evaluation.result import read_evaluation as read_evaluation
    from surgeon.evaluation.result import save_evaluation as save_evaluation
    from surgeon.onnx_model.open_onnx import OnnxModel as OnnxModel
    from surgeon.onnx_model.open_onnx import open_onnx as open_onnx
    from surgeon.outliers import Agreement as Agreement
    from surgeon.outliers import Options as Options
    from surgeon.outliers import Ranking as Ranking
    from surgeon.outliers import compare_detectors as compare_detectors
    from surgeon.outliers import rank_by_layernorm as rank_by_layernorm
    from surgeon.outliers import rank_dimensions as rank_dimensions
    from surgeon.outliers import read_zscores as read_zscores
    from surgeon.plots import plot_ranking as plot_ranking
    from surgeon.plots import plot_trace as plot_trace
    from surgeon.plots.report import write_report as write_report
    from surgeon.plots.sweep_report import write_sweep_report as write_sweep_report
    from surgeon.study.atlas import build_atlas as build_atlas
    from surgeon.study.atlas_summary import Atlas as Atlas
    from surgeon.study.trace import trace_training as trace_training
    from surgeon.study.trace_result import Trace as Trace
    from surgeon.surgery.compare import Comparison as Comparison
    from surgeon.surgery.compare import compare as compare
    from surgeon.surgery.export_only import Export as Export
    from surgeon.surgery.export_only import export as export
    from surgeon.surgery.onnx_patch import operate_onnx as operate_onnx
    from surgeon.surgery.onnx_plan import OnnxPlan as OnnxPlan
    from surgeon.surgery.onnx_plan import make_onnx_plan as make_onnx_plan
    from surgeon.surgery.operate import operate as operate
    from surgeon.surgery.plan import Plan as Plan
    from surgeon.surgery.plan import make_plan as make_plan
    from surgeon.surgery.push import push as push
    from surgeon.surgery.recipe import Recipe as Recipe
    from surgeon.surgery.recipe_file import load_recipe as load_recipe
    from surgeon.surgery.record import Record as Record
    from surgeon.surgery.record import read_record as read_record
    from surgeon.surgery.restore import restore as restore
    from surgeon.surgery.small_patch import plan_from_small_patch as plan_from_small_patch
    from surgeon.surgery.small_patch import write_small_patch as write_small_patch
    from surgeon.surgery.verify import Verification as Verification
    from surgeon.surgery.verify import verify as verify
    from surgeon.text import Texts as Texts
    from surgeon.text import built_in_sample as built_in_sample
    from surgeon.text import ranking_sample as ranking_sample
    from surgeon.text import read_texts as read_texts

_HOMES = {
    "Agreement": "surgeon.outliers",
    "Atlas": "surgeon.study.atlas_summary",
    "Checkpoint": "surgeon.checkpoint",
    "Comparison": "surgeon.surgery.compare",
    "Evaluation": "surgeon.evaluation.result",
    "Export": "surgeon.surgery.export_only",
    "OnnxModel": "surgeon.onnx_model.open_onnx",
    "OnnxPlan": "surgeon.surgery.onnx_plan",
    "Options": "surgeon.outliers",
    "Plan": "surgeon.surgery.plan",
    "Ranking": "surgeon.outliers",
    "Recipe": "surgeon.surgery.recipe",
    "Record": "surgeon.surgery.record",
    "SurgeonError": "surgeon.errors",
    "TaskOptions": "surgeon.surgery.expectation",
    "Texts": "surgeon.text",
    "Trace": "surgeon.study.trace_result",
    "Verification": "surgeon.surgery.verify",
    "build_atlas": "surgeon.study.atlas",
    "built_in_sample": "surgeon.text",
    "compare": "surgeon.surgery.compare",
    "compare_detectors": "surgeon.outliers",
    "evaluate": "surgeon.evaluation.evaluate",
    "export": "surgeon.surgery.export_only",
    "load_recipe": "surgeon.surgery.recipe_file",
    "make_onnx_plan": "surgeon.surgery.onnx_plan",
    "make_plan": "surgeon.surgery.plan",
    "open_checkpoint": "surgeon.checkpoint",
    "open_for_scan": "surgeon.checkpoint",
    "open_onnx": "surgeon.onnx_model.open_onnx",
    "operate": "surgeon.surgery.operate",
    "operate_onnx": "surgeon.surgery.onnx_patch",
    "plan_from_small_patch": "surgeon.surgery.small_patch",
    "plot_ranking": "surgeon.plots",
    "plot_trace": "surgeon.plots",
    "push": "surgeon.surgery.push",
    "rank_by_layernorm": "surgeon.outliers",
    "rank_dimensions": "surgeon.outliers",
    "ranking_sample": "surgeon.text",
    "read_evaluation": "surgeon.evaluation.result",
    "read_record": "surgeon.surgery.record",
    "read_texts": "surgeon.text",
    "read_zscores": "surgeon.outliers",
    "restore": "surgeon.surgery.restore",
    "save_evaluation": "surgeon.evaluation.result",
    "trace_training": "surgeon.study.trace",
    "verify": "surgeon.surgery.verify",
    "write_report": "surgeon.plots.report",
    "write_sweep_report": "surgeon.plots.sweep_report",
    "write_small_patch": "surgeon.surgery.small_patch",
}

__all__ = ["__version__", *_HOMES]  # noqa: PLE0604  (the names of the table above)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'surgeon' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
