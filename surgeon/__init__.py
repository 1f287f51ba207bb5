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

if TYPE_CHECKING:
    from surgeon.checkpoint import Checkpoint as Checkpoint
    from surgeon.checkpoint import open_checkpoint as open_checkpoint
    from surgeon.checkpoint import open_for_scan as open_for_scan
    from surgeon.errors import SurgeonError as SurgeonError
    from surgeon.evaluation.evaluate import evaluate as evaluate
    from surgeon.evaluation.result import Evaluation as Evaluation
    from surgeon.evaluation.result import save_evaluation as save_evaluation
    from surgeon.outliers import Ranking as Ranking
    from surgeon.outliers import rank_by_layernorm as rank_by_layernorm
    from surgeon.surgery.compare import Comparison as Comparison
    from surgeon.surgery.compare import compare as compare
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
    from surgeon.text import read_texts as read_texts

__version__ = "0.1.0"

_HOMES = {
    "Checkpoint": "surgeon.checkpoint",
    "Comparison": "surgeon.surgery.compare",
    "Evaluation": "surgeon.evaluation.result",
    "Plan": "surgeon.surgery.plan",
    "Ranking": "surgeon.outliers",
    "Recipe": "surgeon.surgery.recipe",
    "Record": "surgeon.surgery.record",
    "SurgeonError": "surgeon.errors",
    "Texts": "surgeon.text",
    "Verification": "surgeon.surgery.verify",
    "built_in_sample": "surgeon.text",
    "compare": "surgeon.surgery.compare",
    "evaluate": "surgeon.evaluation.evaluate",
    "load_recipe": "surgeon.surgery.recipe_file",
    "make_plan": "surgeon.surgery.plan",
    "open_checkpoint": "surgeon.checkpoint",
    "open_for_scan": "surgeon.checkpoint",
    "operate": "surgeon.surgery.operate",
    "plan_from_small_patch": "surgeon.surgery.small_patch",
    "push": "surgeon.surgery.push",
    "rank_by_layernorm": "surgeon.outliers",
    "read_record": "surgeon.surgery.record",
    "read_texts": "surgeon.text",
    "restore": "surgeon.surgery.restore",
    "save_evaluation": "surgeon.evaluation.result",
    "verify": "surgeon.surgery.verify",
    "write_small_patch": "surgeon.surgery.small_patch",
}

__all__ = ["__version__", *_HOMES]  # noqa: PLE0604  (the names of the table above)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'surgeon' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
