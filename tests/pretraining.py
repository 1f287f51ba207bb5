"""A pre-training run of which the norms are kept: see tests/benchmarks/pretrain_and_trace.py."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

_NORMS = Path(__file__).with_name("pretraining.npz")
STEPS = range(0, 4001, 400)


def write_run(folder):
    """Write a checkpoint every 400 steps: the output norms alone, of 4 layers × 128 dimensions."""
    with np.load(_NORMS) as norms:
        for step in STEPS:
            checkpoint = folder / f"step-{step}"
            checkpoint.mkdir(parents=True)
            (checkpoint / "config.json").write_text(json.dumps({"model_type": "bert"}))
            tensors = {
                f"bert.encoder.layer.{layer}.output.LayerNorm.{name}": vector
                for kind, name in (("gain", "weight"), ("bias", "bias"))
                for layer, vector in enumerate(norms[f"{step} {kind}"])
            }
            save_file(tensors, checkpoint / "model.safetensors")
    return folder
