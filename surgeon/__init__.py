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

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
