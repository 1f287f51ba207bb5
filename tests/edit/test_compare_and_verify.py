import math
import shutil

import numpy as np
import pytest
import torch
import transformers
from artifacts import cached, edit_record, flip_bit, patch, record_files, safetensors_bytes
from safetensors.torch import load_file, save, save_file

from surgeon import compare, open_checkpoint, read_record, verify
from surgeon.evaluation.session import open_session
from surgeon.model.tensors import BITS


@pytest.fixture(scope="module")
def artifact(tiny, patched_once):
    """A patched tiny BERT, ONNX half included."""
    return patched_once(tiny("bert"), 3, 9)


def test_a_checkpoint_is_identical_to_itself_in_any_layout(tiny, tmp_path, monkeypatch):
    import surgeon.model.tensors as reader

    monkeypatch.setattr(reader, "PIECE", 64)  # so that tensors come in many pieces
    model = transformers.AutoModelForMaskedLM.from_pretrained(tiny("bert"))
    model.save_pretrained(tmp_path / "shards", max_shard_size="5KB")
    one, other = open_checkpoint(tiny("bert")), open_checkpoint(tmp_path / "shards")
    assert len(other.files) > 3
    assert compare(one, other).identical


def _compare(folder, *contents):
    """Compare two checkpoints of these tensors, or of these bytes."""
    for name, content in zip("ab", contents, strict=True):
        raw = content if isinstance(content, bytes) else save(content)
        (folder / f"{name}.safetensors").write_bytes(raw)
    return compare(*(open_checkpoint(folder / f"{name}.safetensors") for name in "ab"))


@pytest.mark.parametrize(
    ("first", "second", "changed", "axis", "dims"),
    [
        ([[0.0] * 4] * 6, [[0.0, 0.0, 1.0, 0.0]] * 6, 6, 1, (2,)),
        ([0] * 5, [0, 0, 0, 0, -1], 1, 0, (4,)),
        ([0.0, math.nan], [-0.0, math.nan], 1, 0, (0,)),  # bits are compared, not numbers
        (1.0, 2.0, 1, None, None),
    ],
    ids=["a column", "a row", "the sign of zero beside nan", "no axis"],
)
def test_diff_tells_which_rows_or_columns_changed(tmp_path, first, second, changed, axis, dims):
    found = _compare(tmp_path, *({"w": torch.tensor(values)} for values in (first, second)))
    assert [(t.changed, t.axis, t.dims) for t in found.tensors] == [(changed, axis, dims)]
    assert found.scalars_changed == changed


def test_diff_compares_what_lies_in_pieces_of_other_lengths(tmp_path):
    matrix = torch.arange(1100.0 * 1100).reshape(1100, 1100).t()  # of more than one piece
    (tmp_path / "config.json").write_text("{}")
    torch.save({"w": matrix}, tmp_path / "pytorch_model.bin")
    changed = matrix.contiguous()
    changed[:, 7] += 1
    save_file({"w": changed}, tmp_path / "other.safetensors")
    found = compare(open_checkpoint(tmp_path), open_checkpoint(tmp_path / "other.safetensors"))
    assert [(t.changed, t.axis, t.dims) for t in found.tensors] == [(1100, 1, (7,))]


def test_diff_allocates_nothing_for_a_shape_without_numbers(tmp_path):
    header = {"w": {"dtype": "F32", "shape": [0, 2**50], "data_offsets": [0, 0]}}
    assert _compare(tmp_path, *[safetensors_bytes(header)] * 2).identical


@pytest.mark.parametrize("dtype", ["F4", "F6_E2M3"])
def test_diff_claims_no_dims_of_a_tensor_whose_scalars_share_bytes(tmp_path, dtype):
    header = {"w": {"dtype": dtype, "shape": [4, 2], "data_offsets": [0, BITS[dtype]]}}
    rest = range(BITS[dtype] - 1)
    a, b = (safetensors_bytes(header, bytes([first, *rest])) for first in (0, 1))
    assert _compare(tmp_path, a, a).identical
    (found,) = _compare(tmp_path, a, b).tensors
    assert (found.reason, found.changed, found.axis, found.dims) == ("packed values", 8, None, None)


def test_diff_names_tensors_of_one_side_and_of_another_shape_or_dtype(tmp_path):
    first = {"a": torch.zeros(2), "shape": torch.zeros(4), "dtype": torch.zeros(3)}
    second = {"b": torch.zeros(2), "shape": torch.zeros(2, 2), "dtype": torch.zeros(3).half()}
    found = _compare(tmp_path, first, second)
    reasons = {"a": "only in A", "b": "only in B", "shape": "shape", "dtype": "dtype"}
    assert {tensor.name: tensor.reason for tensor in found.tensors} == reasons


def test_an_artifact_in_the_cache_of_the_hub_passes_and_is_run_there(artifact, tmp_path):
    snapshot = cached(artifact, tmp_path)
    assert verify(snapshot).passed
    onnx = read_record(snapshot).onnx
    session = open_session(snapshot / onnx["model"], onnx["outputs"], onnx["vectors"], "cpu")
    assert session.outputs == tuple(onnx["outputs"])


def test_an_artifact_as_it_was_made_passes_every_check(tiny, artifact, done):
    verification = verify(artifact)
    assert verification.passed
    names = [check.name for check in verification.checks]
    assert "model.safetensors restores to the source" in names
    assert "the ONNX half holds the same vectors" in names
    assert f"All {len(names)} checks passed." in done("verify", artifact).out
    assert "Identical" in done("diff", artifact, artifact, "--exit-code").out
    told = done("diff", tiny("bert"), artifact, "--exit-code", code=1).out
    assert "\n12 scalars differ, in 6 of " in told


@pytest.mark.parametrize(
    ("damage", "failed"),
    [
        (lambda a: flip_bit(a / "model.safetensors"), "model.safetensors"),
        (lambda a: flip_bit(a / "model.safetensors"), "model.safetensors restores to"),
        (lambda a: flip_bit(a / "config.json", 5), "config.json"),
        (lambda a: flip_bit(a / "onnx" / "model.onnx", -200), "onnx/model.onnx"),
        (lambda a: flip_bit(a / "surgeon" / "excised.safetensors"), "excised"),
        (lambda a: (a / "config.json").unlink(), "config.json"),
        (lambda a: (a / "onnx" / "model.onnx").unlink(), "onnx/model.onnx"),
        (lambda a: (a / "pytorch_model.bin").write_bytes(b"twin"), "no file beside"),
    ],
)
def test_any_change_fails_a_check_and_the_command(artifact, tmp_path, done, damage, failed):
    copy = shutil.copytree(artifact, tmp_path / "copy")
    damage(copy)
    verification = verify(copy)
    assert not verification.passed
    assert any(failed in check.name for check in verification.checks if not check.passed)
    assert "checks failed" in done("verify", copy, code=1).err


def test_a_record_that_tells_another_edit_fails(artifact, tmp_path):
    """Consistent hashes do not help: the values must be what the recipe makes of the old ones."""
    copy = shutil.copytree(artifact, tmp_path / "copy")
    edit_record(copy, lambda record: record["recipe"].update(mode="scale", factor=0.5))
    failed = [check.name for check in verify(copy).checks if not check.passed]
    assert failed == ["the edits are what the recipe says"]


def test_an_onnx_half_of_other_weights_fails(artifact, tmp_path):
    """Even with a hash in the record that fits it."""
    import onnx

    copy = shutil.copytree(artifact, tmp_path / "copy")
    model_path = copy / "onnx" / "model.onnx"
    model = onnx.load(model_path)
    name = "bert.encoder.layer.1.output.LayerNorm.bias"
    (tensor,) = [t for t in model.graph.initializer if t.name == name]
    values = onnx.numpy_helper.to_array(tensor) + np.float32(1)
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, name))
    onnx.save(model, model_path)
    record_files(copy)
    failed = [check for check in verify(copy).checks if not check.passed]
    assert [check.name for check in failed] == ["the ONNX half holds the same vectors"]
    assert name in failed[0].found


def test_the_weights_of_tied_and_unknown_tensors_are_left_as_they_are(tiny, tmp_path):
    source = shutil.copytree(tiny("gpt2"), tmp_path / "source")
    tensors = load_file(source / "model.safetensors")
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"].clone()
    tensors["nobody.knows.me"] = torch.arange(7)
    save_file(tensors, source / "model.safetensors")  # and no {"format": "pt"}
    patch(source, tmp_path / "out", dims=(3,))
    found = compare(open_checkpoint(source), open_checkpoint(tmp_path / "out"))
    assert {tensor.name.split(".")[-2] for tensor in found.tensors} == {"c_proj"}
    assert all("mlp" in tensor.name for tensor in found.tensors)
