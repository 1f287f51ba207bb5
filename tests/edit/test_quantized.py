"""Checkpoints whose weights are packed, under the names and in the shapes that libraries use."""

import json

import ml_dtypes
import numpy as np
import pytest
from artifacts import assert_undone, patch, plan_of
from families import save_family
from safetensors.numpy import load_file, save_file

from surgeon import compare, open_checkpoint, write_artifact
from surgeon.errors import CheckpointError, ExportError


def _gptq(module, weight, kept):
    rows, columns = weight.shape
    kept[f"{module}.qweight"] = np.zeros((columns // 8, rows), np.int32)
    kept[f"{module}.qzeros"] = np.zeros((1, rows // 8), np.int32)
    kept[f"{module}.scales"] = np.zeros((1, rows), np.float16)


def _bitsandbytes(module, weight, kept):
    kept[f"{module}.weight"] = np.zeros((weight.size // 2, 1), np.uint8)
    kept[f"{module}.weight.absmax"] = np.zeros(weight.size // 64, np.float32)
    kept[f"{module}.weight.quant_state.bitsandbytes__nf4"] = np.zeros(4, np.uint8)


def _compressed(module, weight, kept):
    rows, columns = weight.shape
    kept[f"{module}.weight_packed"] = np.zeros((rows, columns // 8), np.int32)
    kept[f"{module}.weight_scale"] = np.zeros((rows, 1), ml_dtypes.bfloat16)


def _eight_bits(module, weight, kept):
    kept[f"{module}.weight"] = weight.astype(np.int8)


def _bitnet(module, weight, kept):
    kept[f"{module}.weight"] = np.zeros((len(weight) // 4, weight.shape[1]), np.uint8)
    kept[f"{module}.weight_scale"] = np.ones(1, ml_dtypes.bfloat16)


def _hqq(module, weight, kept):
    kept[f"{module}.W_q"] = np.zeros((weight.size // 16, 8), np.uint8)
    kept[f"{module}.scale"] = np.ones((weight.size // 8, 1), np.float16)


_STORED = {
    "gptq": (_gptq, r"down_proj\.qweight is stored as I32 of shape \[3, 16\], quantized"),
    "bitsandbytes": (_bitsandbytes, r"down_proj\.weight is stored as U8 of shape \[192, 1\]"),
    "compressed": (_compressed, r"down_proj\.weight_packed is stored as I32"),
    "bitnet": (_bitnet, r"down_proj\.weight is stored as U8 of shape \[4, 24\]"),
    "hqq": (_hqq, r"down_proj\.W_q is stored as U8 of shape \[24, 8\]"),
    "int8": (_eight_bits, r"down_proj\.weight is stored as I8 of shape \[16, 24\], quantized"),
}


@pytest.fixture(params=_STORED)
def quantized(request, tmp_path):
    """A tiny Llama with its dense layers quantized, and what is said of its output sites."""
    source = tmp_path / "source"
    save_family("llama", source)
    pack, complaint = _STORED[request.param]
    kept = {}
    for name, tensor in load_file(source / "model.safetensors").items():
        if "_proj" in name:
            pack(name.removesuffix(".weight"), tensor, kept)
        else:
            kept[name] = tensor
    save_file(kept, source / "model.safetensors")
    return source, complaint


def test_float_vectors_of_a_quantized_model_are_edited_and_restored(quantized, tmp_path):
    source, _ = quantized
    plan = plan_of(source, dims=(3, 9), sites=("final",))
    assert [edit.tensor for edit in plan.edits] == ["model.norm.weight"]
    assert plan.checkpoint.hidden_size == 16
    write_artifact(plan, tmp_path / "out", onnx=False)
    found = compare(open_checkpoint(source), open_checkpoint(tmp_path / "out"))
    assert [(t.name, t.dims) for t in found.tensors] == [("model.norm.weight", (3, 9))]
    assert_undone(tmp_path / "out", source)


def test_its_packed_weights_are_refused_and_what_can_be_done_is_said(quantized, refused):
    source, complaint = quantized
    with pytest.raises(CheckpointError, match=f"{complaint}.*`sites`"):
        plan_of(source, dims=(3,))
    refused("scan", source)


def test_its_onnx_half_is_refused_before_anything_is_written(quantized, tmp_path):
    with pytest.raises(ExportError, match="made of plain weights; use `onnx=False`"):
        patch(quantized[0], tmp_path / "out", onnx=True, dims=(3,), sites=("final",))
    assert not (tmp_path / "out").exists()


def test_a_packed_model_without_a_float_vector_has_no_hidden_size(quantized):
    source, _ = quantized
    tensors = load_file(source / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, source / "model.safetensors")
    with pytest.raises(CheckpointError, match="is quantized, and no float vector"):
        assert open_checkpoint(source).sites
    assert json.loads((source / "config.json").read_text())["hidden_size"] == 16
