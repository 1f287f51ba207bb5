"""Training runs: norms set by hand, so that it is known what leaves when, and those of a real one.

The real one is of tests/benchmarks/pretrain_and_trace.py.
"""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

LAYERS, HIDDEN = 4, 32
_NORMS = Path(__file__).with_name("pretraining.npz")
_STEPS = range(0, 4001, 400)


def make_template(folder):
    """Save the model that every checkpoint is, but for its norms."""
    import transformers

    config = transformers.BertConfig(
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        intermediate_size=64,
        vocab_size=20_000,  # most of the file, as in a real one
        max_position_embeddings=64,
    )
    transformers.BertForMaskedLM(config).save_pretrained(folder)
    return folder


def write_checkpoint(template, folder, out, *, layers=range(LAYERS)):
    """Write a checkpoint where the dims ``out`` are far from the bulk, in these layers."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_bytes((template / "config.json").read_bytes())
    tensors = load_file(template / "model.safetensors")
    rng = np.random.default_rng(len(out))
    for layer in range(LAYERS):
        for name, mean, away in (("weight", 1.0, -0.6), ("bias", 0.0, 0.5)):
            vector = rng.normal(mean, 0.01, HIDDEN).astype(np.float32)
            if layer in layers:
                vector[list(out)] += away
            tensors[f"bert.encoder.layer.{layer}.output.LayerNorm.{name}"] = vector
    save_file(tensors, folder / "model.safetensors")


def write_run(template, folder, outs, name="step-{}"):
    """Write a checkpoint per step of ``outs``: step → the dims that are out of the bulk."""
    for step, out in outs.items():
        write_checkpoint(template, folder / name.format(step), out)
    return folder


def write_pretraining(folder):
    """Write a checkpoint every 400 steps: the output norms alone, of 4 layers × 128 dimensions."""
    with np.load(_NORMS) as norms:
        for step in _STEPS:
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
