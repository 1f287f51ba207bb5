"""Weights in codes whose rows are zeroed as they are stored: FP4 by blocks with scales, int8."""

import json

import ml_dtypes
import numpy as np
import pytest
from artifacts import assert_undone, patch, plan_of
from families import save_family
from safetensors.numpy import save_file
from small_models import save_shards

import surgeon
from surgeon import open_checkpoint, read_zscores
from surgeon.errors import CheckpointError
from surgeon.model.remote import open_remote
from surgeon.model.tensors import open_safetensors

_JOINED = "model.layers.0.mlp.experts.down_proj"
_APART = [f"model.layers.0.mlp.experts.{number}.down_proj." for number in range(2)]
_RNG = np.random.default_rng(0)


def _bytes(*shape):
    return _RNG.integers(0, 256, shape, dtype=np.uint8)


def _e8m0(*shape):
    return _RNG.integers(118, 130, shape, dtype=np.uint8)


def _e4m3(*shape):
    return _RNG.uniform(1, 400, shape).astype(ml_dtypes.float8_e4m3fn)


def _gpt_oss():
    bias = _RNG.normal(size=(2, 16)).astype(ml_dtypes.bfloat16)
    codes = {f"{_JOINED}_blocks": _bytes(2, 16, 3, 16), f"{_JOINED}_scales": _e8m0(2, 16, 3)}
    return "gpt_oss", {**codes, f"{_JOINED}_bias": bias}


def _experts(make):
    return "qwen3_moe", {e + leaf: value for e in _APART for leaf, value in make().items()}


def _mxfp4(codes, scales=_e8m0):
    return lambda: {codes: _bytes(16, 48), "weight_scale": scales(16, 3)}


def _nvfp4(codes, of_all):
    whole = {of_all: np.float32([_RNG.uniform(0.1, 9)])}
    return {codes: _bytes(16, 48), "weight_scale": _e4m3(16, 6), **whole}


def _int8():
    scales = _RNG.uniform(1, 9, (16, 1)).astype(ml_dtypes.bfloat16)
    return {"weight": _bytes(16, 48).view(np.int8), "weight_scale": scales}


def _float8():
    scale = np.float32(_RNG.uniform(0.1, 9))
    return {"weight": _e4m3(16, 48), "weight_scale": np.array(scale)}


_LAYOUTS = {
    "gpt-oss": _gpt_oss,
    "mxfp4 of compressed-tensors": lambda: _experts(_mxfp4("weight_packed")),
    "mxfp4 of Quark": lambda: _experts(_mxfp4("weight")),
    "nvfp4 of compressed-tensors": lambda: _experts(
        lambda: _nvfp4("weight_packed", "weight_global_scale")
    ),
    "nvfp4 of ModelOpt": lambda: _experts(lambda: _nvfp4("weight", "weight_scale_2")),
    "int8": lambda: _experts(_int8),
    "float8, a scale for each expert": lambda: _experts(_float8),
}


def _dequantized(tensors):
    """Return tensors with their codes as float32, by the definition of each layout."""
    if f"{_JOINED}_blocks" in tensors:
        import torch
        from transformers.integrations.mxfp4 import convert_moe_packed_tensors

        parts = (torch.from_numpy(tensors[f"{_JOINED}_{leaf}"]) for leaf in ("blocks", "scales"))
        weight = convert_moe_packed_tensors(*parts, dtype=torch.float32).numpy()
        return {_JOINED: weight, f"{_JOINED}_bias": tensors[f"{_JOINED}_bias"]}
    plain = {}
    for expert in _APART:
        leaves = {n.removeprefix(expert): v for n, v in tensors.items() if n.startswith(expert)}
        codes = leaves.get("weight_packed", leaves.get("weight"))
        if codes.dtype == np.uint8:
            halves = np.stack([codes & 15, codes >> 4], axis=-1).reshape(16, -1)
            codes = halves.view(ml_dtypes.float4_e2m1fn)
        scales = leaves["weight_scale"]
        scales = scales.view(ml_dtypes.float8_e8m0fnu) if scales.dtype == np.uint8 else scales
        scales = np.atleast_2d(scales.astype(np.float32))
        scales = np.repeat(scales, codes.shape[1] // scales.shape[1], axis=1)
        whole = leaves.get("weight_scale_2", 1) / leaves.get("weight_global_scale", 1)
        plain[f"{expert}weight"] = codes.astype(np.float32) * scales * whole
    return plain


def _save(folder, model_type, tensors):
    folder.mkdir()
    norm = {"model.norm.weight": np.ones(16, np.float32)}
    save_file({**tensors, **norm}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    return folder


def _load(folder):
    found = {}
    for path in folder.glob("*.safetensors"):
        file = open_safetensors(path)
        found |= {name: file.read(name) for name in file.tensors}
    return found


@pytest.fixture(params=_LAYOUTS)
def stored(request, tmp_path):
    """A model of one layer of 16 dimensions in codes, and the same one dequantized."""
    model_type, tensors = _LAYOUTS[request.param]()
    codes = _save(tmp_path / "codes", model_type, tensors)
    return codes, _save(tmp_path / "plain", model_type, _dequantized(tensors))


def test_codes_are_ranked_as_what_they_stand_for(stored):
    found, wanted = (read_zscores(open_checkpoint(folder)) for folder in stored)
    np.testing.assert_allclose(found.gain, wanted.gain, atol=1e-5)


def test_zeroed_codes_stand_for_what_is_zeroed_and_all_others_for_what_they_did(stored, tmp_path):
    codes, plain = stored
    found, wanted = patch(codes, tmp_path / "out"), patch(plain, tmp_path / "wanted")
    counted = ("dims", "hidden_size", "parameters_changed")
    assert [getattr(found, name) for name in counted] == [getattr(wanted, name) for name in counted]
    assert [edit.scalars for edit in found.edits] == [edit.scalars for edit in wanted.edits]
    now, zeroed = _dequantized(_load(tmp_path / "out")), _load(tmp_path / "wanted")
    for name, values in now.items():
        assert values.tobytes() == zeroed[name].tobytes()
    assert_undone(tmp_path / "out", codes)


def test_codes_are_zeroed_by_a_small_patch_and_differ_where_it_says(stored, tmp_path):
    opened = open_checkpoint(stored[0])
    surgeon.write_small_patch(plan_of(opened, dims=(3,)), tmp_path / "edit.surgeon")
    plan = surgeon.plan_from_small_patch(tmp_path / "edit.surgeon", opened)
    surgeon.write_artifact(plan, tmp_path / "out", onnx=False)
    found = surgeon.compare(opened, open_checkpoint(tmp_path / "out")).tensors
    assert {one.name: one.dims for one in found} == {edit.tensor: (3,) for edit in plan.edits}


@pytest.fixture
def gpt_oss(tmp_path):
    """Save gpt-oss in codes with its tensors changed."""

    def make(**changed):
        tensors = {n.removeprefix(f"{_JOINED}_"): v for n, v in _gpt_oss()[1].items()} | changed
        kept = {f"{_JOINED}_{n}": value for n, value in tensors.items() if value is not None}
        return _save(tmp_path / "codes", "gpt_oss", kept)

    return make


@pytest.mark.parametrize("mode", [{"mode": "scale", "factor": 2}, {"mode": "mean"}])
def test_codes_are_too_few_for_another_mode(gpt_oss, mode):
    with pytest.raises(CheckpointError, match=r"down_proj_blocks is stored as U8.*`mode` zero$"):
        plan_of(gpt_oss(), dims=(3,), **mode)


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"scales": None}, "is stored as U8 .* cannot be edited"),
        ({"scales": _e8m0(2, 16, 2)}, "is stored as U8 .* cannot be edited"),
        ({"scales": np.ones((2, 16, 3), np.float32)}, "is stored as U8 .* cannot be edited"),
        ({"blocks": _bytes(2, 16, 3, 15)}, "is stored as U8 .* cannot be edited"),
        ({"zero_point": _bytes(2, 16, 3)}, "is stored as U8 .* cannot be edited"),
        ({"scales": np.full((2, 16, 3), 255, np.uint8)}, "down_proj_scales holds values that are"),
        ({"scale_2": np.ones(2, np.float32)}, r"down_proj_scale_2 has shape \[2\], which does not"),
        ({"blocks": _bytes(2, 16, 0, 16), "scales": _e8m0(2, 16, 0)}, "0], which does not fit"),
        ({"bias": np.ones((2, 15), np.float32)}, r"shape \[2, 16, 48\] and its bias \[2, 15\]"),
        ({"blocks": _bytes(2, 9, 3, 16), "scales": _e8m0(2, 9, 3)}, r"shape \[2, 9, 48\] and its"),
    ],
)
def test_codes_that_are_not_known_to_be_rows_with_scales_are_refused(
    gpt_oss, changed, complaint, refused
):
    folder = gpt_oss(**changed)
    with pytest.raises(CheckpointError, match=complaint):
        plan_of(folder, dims=(3,))
    refused("scan", folder)


def test_two_dimensions_in_a_byte_are_refused(tmp_path):
    """As of a layer that stores (inputs, outputs), with nothing beside it that has a width."""
    name = "h.0.mlp.c_proj.weight"
    save_file({name: _bytes(48, 16), f"{name}_scale": _e8m0(48, 1)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(CheckpointError, match="cannot be edited exactly"):
        plan_of(tmp_path, dims=(3,))


def test_codes_and_scales_in_different_shards_are_read_and_edited(gpt_oss, tmp_path, serving):
    whole, folder = gpt_oss(), tmp_path / "shards"
    folder.mkdir()
    (folder / "config.json").write_bytes((whole / "config.json").read_bytes())
    homes = json.loads(save_shards(_load(whole), folder).read_bytes())["weight_map"]
    assert homes[f"{_JOINED}_blocks"] != homes[f"{_JOINED}_scales"]
    wanted = read_zscores(open_checkpoint(whole))
    assert open_checkpoint(folder).parameters_total == 2 * 16 * (3 * 32 + 1) + 16
    serving({"org/codes": folder})
    found = read_zscores(open_remote("org/codes"))
    np.testing.assert_array_equal(found.gain, wanted.gain)
    patch(folder, tmp_path / "out")
    patch(whole, tmp_path / "wanted")
    out, zeroed = _load(tmp_path / "out"), _load(tmp_path / "wanted")
    assert {n: v.tobytes() for n, v in out.items()} == {n: v.tobytes() for n, v in zeroed.items()}
    assert surgeon.verify(tmp_path / "out").passed


def test_names_alone_say_whose_codes_they_are(tmp_path):
    save_family("gpt_oss", tmp_path)
    tensors = _load(tmp_path)
    for down in [name for name in tensors if name.endswith(".down_proj")]:
        del tensors[down]
        tensors |= {f"{down}_blocks": _bytes(4, 16, 3, 16), f"{down}_scales": _e8m0(4, 16, 3)}
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").unlink()
    plan = plan_of(tmp_path / "model.safetensors", dims=(3,))
    blocks = [edit for edit in plan.edits if edit.tensor.endswith("_blocks")]
    assert len(blocks) == plan.checkpoint.layers == 2
