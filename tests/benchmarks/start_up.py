"""How long ``scan`` and ``patch --no-onnx`` take, against what a user would otherwise run.

Prints ratios of medians, all measured in turn in the same run:

- ``surgeon scan`` on all-MiniLM-L6-v2 against an interpreter that imports numpy and typer;
- ``surgeon patch --no-onnx`` there against ``cp -r`` and against transformers' load, edit,
  ``save_pretrained``.

Run: ``python tests/benchmarks/start_up.py [rounds]``.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from measure import SURGEON, edit_with_transformers, minilm, run


def main(rounds: int) -> None:
    model = minilm()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        commands = {
            "import numpy, typer": [sys.executable, "-c", "import numpy, typer"],
            "surgeon --help": [*SURGEON, "--help"],
            "surgeon scan": [*SURGEON, "scan", str(model)],
            "cp -r": ["cp", "-r", str(model), str(out)],
            "surgeon patch --no-onnx": [
                *(*SURGEON, "patch", str(model), "--dims", "99,157", "--no-onnx", "-o", str(out))
            ],
            "transformers save_pretrained": edit_with_transformers(model, out),
        }
        times = {name: [] for name in commands}
        for _ in range(rounds):
            for name, command in commands.items():
                shutil.rmtree(out, ignore_errors=True)
                times[name].append(run(command)[0])
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, median in medians.items():
        print(f"{name:32} {median:7.3f} s")
    patch, start = medians["surgeon patch --no-onnx"], medians["surgeon --help"]
    scan = medians["surgeon scan"] / medians["import numpy, typer"]
    print(f"scan / import numpy, typer:      {scan:.2f}")
    print(f"(patch - help) / cp -r:          {(patch - start) / medians['cp -r']:.2f}")
    print(f"transformers / patch:            {medians['transformers save_pretrained'] / patch:.1f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
