"""``surgeon sweep`` over every single dimension of all-MiniLM-L6-v2, against a bare loop.

    python tests/benchmarks/one_dimension_sweep.py [TEXTS]

The loop scores each dimension's removal in one session and does nothing else: no controls, no
intervals, no rows. Both take one process on all cores, the model is exported before, and the
start of the sweep's worker counts. Prints the times, their ratio and whether the rankings agree.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from measure import minilm

from surgeon import built_in_sample
from surgeon.edit.plan import make_plan
from surgeon.edit.recipe import Recipe
from surgeon.study.grid import Grid, Model
from surgeon.study.measure import edited, open_model
from surgeon.study.sweep import run_sweep
from surgeon.tasks.registry import EvaluationSettings
from surgeon.tasks.task import Variant, compare

_DIMS = 384


def main() -> None:
    texts = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    model = Model(model=str(minilm()))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = folder / "texts.txt"
        data.write_text("\n".join(built_in_sample().lines[:texts]) + "\n")
        opened = open_model(model, ("output",), folder / "models", "cpu")
        start = time.perf_counter()
        damages = _loop(opened, EvaluationSettings(data=str(data), seed=0))
        alone = time.perf_counter() - start
        grid = Grid(
            models=(model,),
            selections=({"each": f"0-{_DIMS - 1}"},),
            tasks=(EvaluationSettings(data=str(data)),),
        )
        start = time.perf_counter()
        run_sweep(grid, folder / "out", models=folder / "models", provider="cpu")
        swept = time.perf_counter() - start
        lines = (folder / "out" / "rows.jsonl").read_text().splitlines()
        rows = {row["dims"][0]: row["patched"] for row in map(json.loads, lines)}
    ranking = sorted(damages, key=damages.__getitem__, reverse=True)
    same = ranking == sorted(rows, key=rows.__getitem__, reverse=True)
    print(f"bare loop {alone:.1f} s, sweep {swept:.1f} s, ratio {swept / alone:.2f}")
    print(f"strongest {ranking[:5]}, the two rankings of {_DIMS} are the same: {same}")


def _loop(opened, settings) -> dict[int, float]:
    work, baseline = opened.baseline(settings)
    damages = {}
    for dim in range(_DIMS):
        plan = make_plan(opened.checkpoint, Recipe(dims=(dim,)))
        runner = opened.runner(work.task, edited(opened.artifact, plan))
        variant = Variant(f"dim {dim}", (dim,))
        (kept,) = compare(runner, work.examples, [variant], baseline)
        damages[dim] = work.task.scores(kept, work.settings)[work.task.metric].value
    return damages


if __name__ == "__main__":
    main()
