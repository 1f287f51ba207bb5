"""What a patch of a 2 GB checkpoint costs, against ``cp -r`` and against transformers.

Makes a BERT of about 2 GB, then measures in turn, in one run: ``surgeon patch --no-onnx`` less
the tool's own start-up (``surgeon --help``), ``cp -r`` of the same directory to the same disk, and
once transformers' load, edit, ``save_pretrained``. Prints medians, ratios and peak memory.

Run: ``python tests/benchmarks/patch_2gb.py [folder] [rounds]``.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

_LAYERS, _HIDDEN = 24, 2048
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


def make_checkpoint(folder: Path) -> None:
    """A BERT with 24 layers of 2048 dimensions and an intermediate size of 1024."""
    rng = np.random.default_rng(0)
    tensors = {}

    def add(name: str, *shape: int) -> None:
        tensors[name] = rng.standard_normal(shape, dtype=np.float32)

    def add_norm(name: str) -> None:
        add(f"{name}.weight", _HIDDEN)
        add(f"{name}.bias", _HIDDEN)

    def add_dense(name: str, outputs: int, inputs: int) -> None:
        add(f"{name}.weight", outputs, inputs)
        add(f"{name}.bias", outputs)

    add("embeddings.word_embeddings.weight", 4000, _HIDDEN)
    add("embeddings.position_embeddings.weight", 512, _HIDDEN)
    add("embeddings.token_type_embeddings.weight", 2, _HIDDEN)
    add_norm("embeddings.LayerNorm")
    for layer in range(_LAYERS):
        prefix = f"encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            add_dense(f"{prefix}.attention.self.{part}", _HIDDEN, _HIDDEN)
        add_dense(f"{prefix}.attention.output.dense", _HIDDEN, _HIDDEN)
        add_norm(f"{prefix}.attention.output.LayerNorm")
        add_dense(f"{prefix}.intermediate.dense", 1024, _HIDDEN)
        add_dense(f"{prefix}.output.dense", _HIDDEN, 1024)
        add_norm(f"{prefix}.output.LayerNorm")
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "model_type": "bert",
        "architectures": ["BertModel"],
        "hidden_size": _HIDDEN,
        "num_hidden_layers": _LAYERS,
        "num_attention_heads": 16,
        "intermediate_size": 1024,
        "vocab_size": 4000,
        "max_position_embeddings": 512,
    }
    (folder / "config.json").write_text(json.dumps(config))


def run(command: list[str]) -> tuple[float, float]:
    """Return a command's wall time in seconds and peak memory in MiB."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    elapsed = time.perf_counter() - start
    assert status == 0, command
    return elapsed, usage.ru_maxrss / 1024


def main(folder: Path, rounds: int) -> None:
    model, out = folder / "model", folder / "out"
    # In a process of its own: a child's peak memory starts at what its parent had at the fork.
    maker = multiprocessing.get_context("spawn").Process(target=make_checkpoint, args=(model,))
    maker.start()
    maker.join()
    size = (model / "model.safetensors").stat().st_size
    print(f"{size / 1e9:.2f} GB in model.safetensors")
    surgeon = [sys.executable, "-m", "surgeon"]
    patch = [*surgeon, "patch", str(model), "--dims", "99,157", "--no-onnx", "-o", str(out)]
    commands = {
        "surgeon --help": [*surgeon, "--help"],
        "surgeon patch --no-onnx": patch,
        "cp -r": ["cp", "-r", str(model), str(out)],
        "transformers": [sys.executable, "-c", _TRANSFORMERS, str(model), str(out)],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    memory = dict.fromkeys(commands, 0.0)
    for number in range(rounds + 1):
        for name, command in commands.items():
            if name == "transformers" and number != 1:
                continue
            shutil.rmtree(out, ignore_errors=True)
            os.sync()  # nobody pays for what another wrote
            elapsed, peak = run(command)
            if number:  # the first round warms the page cache
                times[name].append(elapsed)
            memory[name] = max(memory[name], peak)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, median in medians.items():
        spread = f"{min(times[name]):.2f} to {max(times[name]):.2f}"
        print(f"{name:26} {median:6.2f} s ({spread}), peak {memory[name]:5.0f} MiB")
    patch_time = medians["surgeon patch --no-onnx"]
    own = patch_time - medians["surgeon --help"]
    print(f"(patch - start-up) / cp -r:    {own / medians['cp -r']:.2f}")
    print(f"patch / transformers:          {patch_time / medians['transformers']:.3f}")


if __name__ == "__main__":
    where = sys.argv[1] if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory(dir=where) as temporary:
        main(Path(temporary), int(sys.argv[2]) if len(sys.argv) > 2 else 5)
