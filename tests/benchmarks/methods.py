"""How good each method is at finding the dimensions that a model leans on, and what it costs.

For each model, every method ranks in a process of its own, and so does the exhaustive ablation of
all dimensions. Then the first two dimensions of each are removed together, and the damage on
texts that ranked nothing is compared with that of the exhaustive run's first two. Time is
``rank_dimensions`` from start to end, loading PyTorch and the model included.

Run: ``python tests/benchmarks/methods.py [minilm antiberty iglm-s]``.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from antibodies import antibodies
from measure import minilm, protein_model
from scipy.stats import spearmanr

from surgeon import Options, built_in_sample, open_checkpoint, rank_dimensions, ranking_sample
from surgeon.progress import silent
from surgeon.ranking import DETECTORS
from surgeon.ranking.removals import start_run
from surgeon.ranking.torch_runner import open_torch_runner
from surgeon.text import Texts

_EXHAUSTIVE = "ablation --exhaustive"
_COUNT = 2


def _antibodies(seed: int) -> Texts:
    return Texts("antibodies", tuple(antibodies(8, seed=seed, mutations=0.035)), b"")


MODELS = {  # name → directory, text that ranks, text that judges
    "minilm": (
        lambda _: minilm(),
        ranking_sample,
        built_in_sample,
    ),
    "antiberty": (
        lambda folder: protein_model("antiberty", "AntiBERTy_md_smooth", folder),
        lambda: _antibodies(0),
        lambda: _antibodies(1),
    ),
    "iglm-s": (
        lambda folder: protein_model("iglm", "IgLM-S", folder),
        lambda: _antibodies(0),
        lambda: _antibodies(1),
    ),
}


def rank_one(model: str, directory: str, row: str) -> None:
    """Rank by one method and print what it found and what that took, as JSON."""
    exhaustive = row == _EXHAUSTIVE
    method = row.split(maxsplit=1)[0]
    texts = MODELS[model][1]() if DETECTORS[method].needs_model else None
    start, cpu = time.perf_counter(), time.process_time()
    count = _COUNT if method == "ablation" else None
    options = Options(texts=texts, exhaustive=exhaustive, count=count)
    ranking = rank_dimensions(open_checkpoint(directory), method, options)
    taken = {
        "seconds": time.perf_counter() - start,
        "cpu": time.process_time() - cpu,
        "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    dimensions = [[d.dim, d.damage] for d in ranking.dimensions]
    print(json.dumps({**taken, "dimensions": dimensions, "outliers": ranking.outliers}))


def main(models: list[str]) -> None:
    print(
        "| model | method | first two | outliers | damage | captured | rank corr. | time | CPU |",
        end="",
    )
    print(" peak memory |\n|---|---|---|---|---|---|---|---|---|---|")
    for model in models:
        with tempfile.TemporaryDirectory() as folder:
            directory = MODELS[model][0](Path(folder))
            found = {}
            for row in (*DETECTORS, _EXHAUSTIVE):
                command = [sys.executable, __file__, "--one", model, str(directory), row]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                found[row] = json.loads(done.stdout)
            _print_rows(model, directory, found)


def _print_rows(model: str, directory: Path, found: dict) -> None:
    firsts = {row: [dim for dim, _ in f["dimensions"][:_COUNT]] for row, f in found.items()}
    damages = _joint_damages(directory, MODELS[model][2](), firsts)
    alone = dict(found[_EXHAUSTIVE]["dimensions"])
    attainable = damages[_EXHAUSTIVE] if found[_EXHAUSTIVE]["outliers"] else None
    for row, result in found.items():
        order = [dim for dim, _ in result["dimensions"]]
        correlation = spearmanr(range(len(order)), [-alone[dim] for dim in order]).statistic
        captured = f"{damages[row] / attainable:.0%}" if attainable else "nothing to"
        outliers = ", ".join(map(str, result["outliers"][:4])) or "none"
        if len(result["outliers"]) > 4:
            outliers += f", … ({len(result['outliers'])})"
        print(
            f"| {model} | {row} | {', '.join(map(str, firsts[row]))} | {outliers} "
            f"| {damages[row]:+.4f} | {captured} "
            f"| {correlation:.2f} | {result['seconds']:.1f} s | {result['cpu']:.1f} s "
            f"| {result['mib']:.0f} MiB |",
            flush=True,
        )
    short, whole = (found[row]["seconds"] for row in ("ablation", _EXHAUSTIVE))
    cpu = found["ablation"]["cpu"] / found[_EXHAUSTIVE]["cpu"]
    print(
        f"\n{model}: the race takes {short / whole:.3f} of the exhaustive run's time, "
        f"{cpu:.3f} of its CPU time\n"
    )


def _joint_damages(directory: Path, texts: Texts, firsts: dict) -> dict:
    run = start_run(open_torch_runner(open_checkpoint(directory), texts, silent), Options())
    whole = run.scores(()).value
    return {row: run.scores(dims).value - whole for row, dims in firsts.items()}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        rank_one(*sys.argv[2:])
    else:
        main(sys.argv[1:] or list(MODELS))
