"""What the ONNX half costs: a first patch of an architecture, and each one after it.

Makes a BERT-base from a configuration, then measures in turn, in one run: ``surgeon patch
--fresh``, ``surgeon patch`` with a graph that is kept, ``surgeon patch --no-onnx`` and, if the
program is given, ``optimum-cli export onnx`` of the same model. Prints medians and their ratios,
the space that the artifact takes against its source, and how long onnxruntime takes to load the
view and a standalone file.

Run: ``python tests/benchmarks/onnx_again.py [rounds] [optimum-cli]``.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import onnxruntime
import transformers
from measure import SURGEON, run

_NO_ONNX, _AGAIN, _FIRST, _PEER = "patch --no-onnx", "patch, again", "patch --fresh", "optimum-cli"


def _du(folder: Path) -> int:
    printed = subprocess.run(["du", "-sk", folder], capture_output=True, text=True, check=True)
    return int(printed.stdout.split()[0])


def _load(path: Path) -> float:
    start = time.perf_counter()
    onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return time.perf_counter() - start


def main(folder: Path, rounds: int, optimum: str | None) -> None:
    os.environ["SURGEON_CACHE"] = str(folder / "cache")
    model, out = folder / "model", folder / "out"
    transformers.BertForMaskedLM(transformers.BertConfig()).save_pretrained(model)
    patch = [*SURGEON, "patch", str(model), "--dims", "99,157", "-o"]
    commands = {
        _FIRST: [*patch, str(out), "--fresh"],
        _AGAIN: [*patch, str(out)],
        _NO_ONNX: [*patch, str(out), "--no-onnx"],
    }
    if optimum:
        task = ["--task", "fill-mask"]
        commands[_PEER] = [optimum, "export", "onnx", "--model", str(model), *task, str(out)]
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            shutil.rmtree(out, ignore_errors=True)
            times[name].append(run(command)[0])
            if name == _AGAIN:
                space = _du(out) / _du(model)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, median in medians.items():
        print(f"{name:16} {median:6.2f} s ({min(times[name]):.2f} to {max(times[name]):.2f})")
    print(f"again / --no-onnx: {medians[_AGAIN] / medians[_NO_ONNX]:.2f}")
    if optimum:
        print(f"--fresh / optimum-cli: {medians[_FIRST] / medians[_PEER]:.2f}")
    print(f"space of the artifact / of the source: {space:.3f}")
    graphs = {}
    for name, more in (("view", []), ("standalone", ["--standalone"])):
        run([*patch, str(folder / name), *more])
        graphs[name] = folder / name / "onnx" / "model.onnx"
    loads = {
        name: statistics.median(_load(path) for _ in range(5)) for name, path in graphs.items()
    }
    print(f"load of the view / of a standalone file: {loads['view'] / loads['standalone']:.2f}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(
            Path(temporary),
            int(sys.argv[1]) if len(sys.argv) > 1 else 3,
            sys.argv[2] if len(sys.argv) > 2 else None,
        )
