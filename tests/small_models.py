"""Small checkpoints of several families on disk, made of numbers alone, with planted outliers."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import ml_dtypes
import numpy as np
from artifacts import safetensors_bytes
from safetensors.numpy import save_file

_DTYPES = ("float32", "float16", "bfloat16")
_FAMILIES = ("bert", "roberta", "gpt2", "llama")
BERT_BASE = {"model_type": "bert", "hidden_size": 768, "num_hidden_layers": 12}


def write_small_model(folder: Path, seed: int) -> Path:
    """Write a checkpoint whose family, size, dtype, shards and outliers follow from the seed."""
    random = np.random.default_rng(seed)
    family = _FAMILIES[seed % 4]
    dtype = getattr(ml_dtypes, _DTYPES[seed % 3], _DTYPES[seed % 3])
    hidden, layers = (16, 24, 48)[seed % 3], 2 + seed % 3
    planted = random.choice(hidden, seed % 3, replace=False)
    tensors = {"embeddings.word_embeddings.weight": random.normal(size=(400, hidden))}
    for layer in range(layers):
        tensors |= _LAYERS[family](random, layer, hidden, planted)
    tensors = {name: values.astype(dtype) for name, values in tensors.items()}
    folder.mkdir(parents=True)
    if seed % 5 == 4:
        save_shards(tensors, folder)
    else:
        save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": family}))
    return folder


def write_bert_base(folder: Path) -> Path:
    """Write a model of BERT-base's shapes, whose output LayerNorms have an outlier at 308."""
    import torch  # the other models take numbers alone
    import transformers

    with torch.device("meta"):
        state = transformers.BertForMaskedLM(transformers.BertConfig()).state_dict()
    tied = "cls.predictions.decoder"
    shapes = {n: tuple(state[n].shape) for n in sorted(state) if not n.startswith(tied)}
    random, filled = np.random.default_rng(0), {}
    for layer, part in itertools.product(range(12), ("weight", "bias")):
        values = random.normal(0.8, 0.05, 768)
        values[308] = 5.0
        filled[f"bert.encoder.layer.{layer}.output.LayerNorm.{part}"] = values
    folder.mkdir(parents=True)
    write_sparse(folder / "model.safetensors", shapes, filled)
    (folder / "config.json").write_text(json.dumps(BERT_BASE))
    return folder


def write_sparse(path: Path, shapes, filled) -> None:
    """Write a safetensors file with zeros that take no space, but for the ``filled`` tensors."""
    header, position = {}, 0
    for name, shape in shapes.items():
        size = 4 * int(np.prod(shape))
        offsets = [position, position + size]
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": offsets}
        position += size
    with path.open("wb") as file:
        start = file.write(safetensors_bytes(header))
        for name, values in filled.items():
            file.seek(start + header[name]["data_offsets"][0])
            file.write(values.astype("<f4").tobytes())
        file.truncate(start + position)


def save_shards(tensors, folder: Path) -> Path:
    """Save tensors in two shards, every other one in the second; return their index."""
    homes = {}
    for number in range(2):
        name = f"model-0000{number + 1}-of-00002.safetensors"
        part = dict(list(tensors.items())[number::2])
        save_file(part, folder / name)
        homes |= dict.fromkeys(part, name)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": homes}))
    return index


def _vectors(random, hidden, planted):
    gain, bias = random.normal(1.0, 0.05, hidden), random.normal(0.0, 0.05, hidden)
    gain[planted], bias[planted] = 6.0, -6.0
    return gain, bias


def _post_norm(random, layer, hidden, planted):
    gain, bias = _vectors(random, hidden, planted)
    place = f"encoder.layer.{layer}"
    return {
        f"{place}.intermediate.dense.weight": random.normal(size=(4 * hidden, hidden)),
        f"{place}.output.LayerNorm.weight": gain,
        f"{place}.output.LayerNorm.bias": bias,
    }


def _gpt2(random, layer, hidden, planted):
    size, bias = _vectors(random, hidden, planted)
    return {
        f"h.{layer}.attn.c_attn.weight": random.normal(size=(hidden, 3 * hidden)),
        f"h.{layer}.mlp.c_proj.weight": random.normal(size=(4 * hidden, hidden)) * size,
        f"h.{layer}.mlp.c_proj.bias": bias,
    }


def _llama(random, layer, hidden, planted):
    size, _ = _vectors(random, hidden, planted)
    return {
        f"model.layers.{layer}.mlp.gate_proj.weight": random.normal(size=(2 * hidden, hidden)),
        f"model.layers.{layer}.mlp.down_proj.weight": (
            random.normal(size=(hidden, 2 * hidden)) * size[:, None]
        ),
    }


_LAYERS = {"bert": _post_norm, "roberta": _post_norm, "gpt2": _gpt2, "llama": _llama}
