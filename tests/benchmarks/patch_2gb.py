"""What a patch of a 2 GB checkpoint costs, against ``cp -r`` and against transformers.

Makes a BERT of about 2 GB, then measures in turn, in one run: ``surgeon patch --no-onnx``, the
tool's own start-up (the same command on a checkpoint of the same tensors with 4 dimensions each:
imports, plan and record are there, the bytes are not), ``cp -r`` of the same directory to the same
disk, and transformers' load, edit, ``save_pretrained``. Prints medians, ratios, the ratios of the
fastest runs, which a busy disk disturbs least, and peak memory.

Run: ``python tests/benchmarks/patch_2gb.py [folder] [rounds]``.
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from measure import SURGEON, edit_with_transformers, run
from safetensors.numpy import save_file

_LAYERS, _HIDDEN, _TINY = 24, 2048, 4
_START_UP, _PATCH, _COPY = "start-up", "surgeon patch --no-onnx", "cp -r"


def make_checkpoint(folder: Path, hidden: int) -> None:
    """A BERT with 24 layers and an intermediate size of half its dimensions."""
    config = transformers.BertConfig(
        hidden_size=hidden,
        num_hidden_layers=_LAYERS,
        num_attention_heads=2,
        intermediate_size=hidden // 2,
        vocab_size=2 * hidden,
        architectures=["BertModel"],
    )
    with torch.device("meta"):
        state = transformers.BertModel(config, add_pooling_layer=False).state_dict()
    rng = np.random.default_rng(0)
    tensors = {n: rng.standard_normal(t.shape, dtype=np.float32) for n, t in state.items()}
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(config.to_json_string())


def main(folder: Path, rounds: int) -> None:
    model, tiny, out = folder / "model", folder / "tiny", folder / "out"
    for target, hidden in ((model, _HIDDEN), (tiny, _TINY)):
        make_checkpoint(target, hidden)
    size = (model / "model.safetensors").stat().st_size
    print(f"{size / 1e9:.2f} GB in model.safetensors")
    options = ["--no-onnx", "-o", str(out)]
    commands = {
        _START_UP: [*SURGEON, "patch", str(tiny), "--dims", "1,2", *options],
        _PATCH: [*SURGEON, "patch", str(model), "--dims", "99,157", *options],
        _COPY: ["cp", "-r", str(model), str(out)],
        "transformers": edit_with_transformers(model, out),
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    memory = dict.fromkeys(commands, 0.0)
    for number in range(rounds + 1):
        # In another order each time: a file system is slower after much was written.
        for name, command in random.sample(sorted(commands.items()), len(commands)):
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
    for what, pick in (("medians", statistics.median), ("fastest", min)):
        start_up, patch, copy, other = (pick(times[name]) for name in commands)
        print(
            f"{what}: (patch - start-up) / cp -r: {(patch - start_up) / copy:.2f}, "
            f"/ transformers: {(patch - start_up) / other:.3f}, "
            f"patch / transformers: {patch / other:.3f}"
        )


if __name__ == "__main__":
    where = sys.argv[1] if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory(dir=where) as temporary:
        main(Path(temporary), int(sys.argv[2]) if len(sys.argv) > 2 else 5)
