"""Find, edit and restore the outlier dimensions of pre-trained Transformers, and prove the effect.

The way of the data, each step a function::

    checkpoint = open_checkpoint("all-MiniLM-L6-v2/")
    ranking = rank_by_layernorm(checkpoint)
    plan = make_plan(checkpoint, Recipe(dims=(99, 157)))
    record = write_artifact(plan, Path("out"))
    evaluation = evaluate(Path("out"))

The public names stand in ``__init__.pyi``, and are imported when they are first used, so that
``import surgeon`` costs nothing.
"""

from __future__ import annotations

import os
import types
from typing import Any

import lazy_loader

# onnxruntime reads it at its import; without it, it keeps a device id and reports to its makers.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_find, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    found = _find(name)
    if isinstance(found, types.FunctionType):
        from surgeon.settings import checked

        found = globals()[name] = checked(found)
    return found
