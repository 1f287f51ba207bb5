"""Tiny models as ONNX files, as different exporters leave them."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import torch
import transformers
from tiny import ALBERT, BART, GEMMA, GPT, LLAMA, TEXT, make_unequal


@dataclass(frozen=True)
class Model:
    """How to make a model, and which modules of a layer write its output."""

    model: type
    config: object
    output: str


def _model(stem, head, config, output):
    of = getattr(transformers, f"{stem}Config")(**config, attn_implementation="eager")
    return Model(getattr(transformers, stem + head), of, output)


MODELS = {
    "bert": _model("Bert", "ForMaskedLM", TEXT, ".output.LayerNorm"),
    "albert": _model("Albert", "ForMaskedLM", ALBERT, "full_layer_layer_norm"),
    "bart": _model("Bart", "Model", BART, "final_layer_norm"),
    "gpt2": _model("GPT2", "LMHeadModel", {**GPT, "n_positions": 32}, "mlp.c_proj"),
    "llama": _model("Llama", "ForCausalLM", LLAMA, "mlp.down_proj"),
    "gemma2": _model("Gemma2", "ForCausalLM", GEMMA, "post_feedforward_layernorm"),
}
TOKENS = (
    torch.tensor([[5, 6, 7, 8, 9], [4, 3, 2, 0, 0]]),
    torch.tensor([[1] * 5, [1, 1, 1, 0, 0]]),
)


class _Graph(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        return self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)[0]


def make_model(name: str, *, fresh: bool = False) -> torch.nn.Module:
    """Make a model; a fresh one has gains of 1 and biases of 0, which exporters merge."""
    of = MODELS[name]
    return make_unequal(of.model, of.config, by=0.0 if fresh else 0.1).eval()


def export(model: torch.nn.Module, path: Path, how: str) -> Path:
    """Export by ``dynamo``, or ``legacy-14`` and other opsets."""
    names = {"input_names": ["input_ids", "attention_mask"], "output_names": ["out"]}
    graph = _Graph(model).eval()
    axes = {0: "batch", 1: "sequence"}
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if how == "dynamo":
            torch.onnx.export(
                graph, TOKENS, path, dynamo=True, verbose=False, dynamic_shapes=(axes, axes),
                external_data=False, **names,
            )  # fmt: skip
        else:
            torch.onnx.export(
                graph, TOKENS, str(path), dynamo=False, opset_version=int(how.split("-")[1]),
                dynamic_axes={"input_ids": axes, "attention_mask": axes}, **names,
            )  # fmt: skip
    (path.parent / "config.json").write_text(json.dumps(model.config.to_dict(), default=str))
    return path


def move_weights_beside(path: Path, target: Path) -> Path:
    """Save an exported file as torch does where its weights take a file of their own."""
    target.parent.mkdir()
    ir.save(ir.load(path), target, external_data=f"{target.name}.data")
    shutil.copy(path.with_name("config.json"), target.parent)
    return target


def fuse(path: Path, target: Path) -> Path:
    """Fuse a BERT as onnxruntime's optimizer does: SkipLayerNormalization and its kin."""
    from onnxruntime.transformers import optimizer

    target.parent.mkdir()
    fused = optimizer.optimize_model(str(path), model_type="bert", num_heads=2, hidden_size=16)
    fused.save_model_to_file(str(target))
    shutil.copy(path.with_name("config.json"), target.parent)
    return target


def initializers(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Read by onnx's own library: what the tests claim does not rest on surgeon's reader."""
    return {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}


def norm_chain(dtype: int = onnx.TensorProto.FLOAT, width: int = 8) -> onnx.ModelProto:
    """Two LayerNormalizations in a row, ``norm.0`` and ``norm.1``, each of its own tensors."""
    rng = np.random.default_rng(0)
    kind = onnx.helper.tensor_dtype_to_np_dtype(dtype)
    tensors = [
        onnx.numpy_helper.from_array(rng.normal(size=width).astype(kind), f"norm.{i}.{leaf}")
        for i in (0, 1)
        for leaf in ("weight", "bias")
    ]
    nodes = [
        onnx.helper.make_node(
            "LayerNormalization", [x, f"norm.{i}.weight", f"norm.{i}.bias"], [y], name=f"n{i}"
        )
        for i, (x, y) in enumerate((("x", "mid"), ("mid", "y")))
    ]
    values = [onnx.helper.make_tensor_value_info(n, dtype, ["n", width]) for n in ("x", "y")]
    graph = onnx.helper.make_graph(nodes, "chain", values[:1], values[1:], tensors)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])


def store_as(model: onnx.ModelProto, kind: int, names: Collection[str]) -> None:
    """Store initializers in another dtype, with a Cast to the one that the graph computes in."""
    for tensor in model.graph.initializer:
        if (name := tensor.name) in names:
            values = onnx.numpy_helper.to_array(tensor)
            narrow = values.astype(onnx.helper.tensor_dtype_to_np_dtype(kind))
            cast = onnx.helper.make_node("Cast", [f"{name}.stored"], [name], to=tensor.data_type)
            model.graph.node.insert(0, cast)
            tensor.CopyFrom(onnx.numpy_helper.from_array(narrow, f"{name}.stored"))
